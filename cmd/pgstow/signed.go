package main

import (
	"fmt"

	"github.com/pgstow/pgstow/archiver"
)

// signatureRow prints what is known of an archive's signature.
func signatureRow(t table, s archiver.Signature) {
	text := s.State
	switch s.State {
	case "":
		return
	case archiver.SignatureValid:
		text = "valid, by " + s.Signer
	case archiver.SignatureUnjudged:
		text = "signed, not judged: --allowed-signers says whose count"
	}
	if s.Reason != "" {
		text += ": " + oneLine(s.Reason)
	}
	wrapped(t, "signature", text)
	optional(t, "", s.Fingerprint)
}

// signedText is that in a line of a list.
func signedText(s *archiver.Signature) string {
	switch {
	case s == nil:
		return "?"
	case s.State == archiver.SignatureValid:
		return "by " + s.Signer
	case s.State == archiver.SignatureUnsigned:
		return "no"
	case s.State == archiver.SignatureUnjudged && s.Reason == "":
		return "yes, not judged"
	}
	return s.State + ": " + oneLine(s.Reason)
}

// previousRow prints which archives before it an archive names.
func previousRow(t table, p *archiver.Previous) {
	switch {
	case p == nil:
	case p.Unreadable:
		t.row("previous", "could not be read when it was made")
	case len(p.Archives) == 0:
		t.row("previous", "none: it was the first of its label")
	default:
		for i, a := range p.Archives {
			name, until := "", ""
			if i == 0 {
				name = "previous"
			}
			if !a.KeepUntil.IsZero() {
				until = ", kept until " + utc(a.KeepUntil)
			}
			t.row(name, fmt.Sprintf("%s%s", a.ID, until))
		}
	}
}
