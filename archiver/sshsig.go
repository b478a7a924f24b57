package archiver

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// SignatureNamespace is that of pgstow's signatures: one made for something
// else with the same key is none.
const SignatureNamespace = "pgstow"

// The format is OpenSSH's SSHSIG (its PROTOCOL.sshsig): what `ssh-keygen -Y sign`
// writes and `ssh-keygen -Y verify` reads.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	sshsigHash    = "sha512" // of what is signed here; sha256 is read, too
	sshsigBegin   = "-----BEGIN SSH SIGNATURE-----"
	sshsigEnd     = "-----END SSH SIGNATURE-----"
	sshsigWidth   = 70
	// maxSignature bounds what is read as one: a real one has less than 5 KiB.
	maxSignature = 64 << 10
)

// errSSHSIG: these are not the bytes of a signature.
var errSSHSIG = errors.New("no SSH signature")

// sshsig is a signature as it stands in a file.
type sshsig struct {
	key       ssh.PublicKey
	namespace string
	reserved  string
	hash      string
	signature *ssh.Signature
}

// sshsigWire is its form behind magic and version.
type sshsigWire struct {
	PublicKey, Namespace, Reserved, Hash, Signature string
}

// sshsigSigned is what the key itself signs, behind the magic.
type sshsigSigned struct {
	Namespace, Reserved, Hash, Digest string
}

// sshsigInput is the input of the key's own signature.
func sshsigInput(namespace, reserved, hash string, message []byte) ([]byte, error) {
	var digest []byte
	switch hash {
	case "sha512":
		sum := sha512.Sum512(message)
		digest = sum[:]
	case "sha256":
		sum := sha256.Sum256(message)
		digest = sum[:]
	default:
		return nil, fmt.Errorf("%w: its hash is %q, not sha512 or sha256", errSSHSIG, hash)
	}
	return append([]byte(sshsigMagic), ssh.Marshal(sshsigSigned{namespace, reserved, hash, string(digest)})...), nil
}

// armorSSHSIG is the text of a signature.
func armorSSHSIG(key ssh.PublicKey, s *ssh.Signature) []byte {
	wire := append([]byte(sshsigMagic), ssh.Marshal(struct{ Version uint32 }{sshsigVersion})...)
	wire = append(wire, ssh.Marshal(sshsigWire{
		PublicKey: string(key.Marshal()), Namespace: SignatureNamespace, Hash: sshsigHash, Signature: string(ssh.Marshal(s)),
	})...)
	text := base64.StdEncoding.EncodeToString(wire)
	var b bytes.Buffer
	b.WriteString(sshsigBegin + "\n")
	for len(text) > 0 {
		n := min(len(text), sshsigWidth)
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString(sshsigEnd + "\n")
	return b.Bytes()
}

// parseSSHSIG reads a signature's text. What is wrong with it is errSSHSIG.
func parseSSHSIG(armored []byte) (*sshsig, error) {
	text, ok := strings.CutPrefix(string(armored), sshsigBegin)
	text, rest, closed := strings.Cut(text, sshsigEnd)
	if !ok || !closed || strings.TrimSpace(rest) != "" {
		return nil, fmt.Errorf("%w: it does not begin and end as one", errSSHSIG)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSSHSIG, err)
	}
	body, ok := bytes.CutPrefix(raw, []byte(sshsigMagic))
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", errSSHSIG, sshsigMagic)
	}
	var version struct {
		Version uint32
		Rest    []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(body, &version); err != nil || version.Version != sshsigVersion {
		return nil, fmt.Errorf("%w: its version is not %d", errSSHSIG, sshsigVersion)
	}
	var wire sshsigWire
	if err := ssh.Unmarshal(version.Rest, &wire); err != nil {
		return nil, fmt.Errorf("%w: it is cut or has bytes to spare", errSSHSIG)
	}
	s := &sshsig{namespace: wire.Namespace, reserved: wire.Reserved, hash: wire.Hash, signature: new(ssh.Signature)}
	if s.key, err = ssh.ParsePublicKey([]byte(wire.PublicKey)); err != nil {
		return nil, fmt.Errorf("%w: its key cannot be read: %w", errSSHSIG, err)
	}
	if err := ssh.Unmarshal([]byte(wire.Signature), s.signature); err != nil {
		return nil, fmt.Errorf("%w: it is cut or has bytes to spare", errSSHSIG)
	}
	return s, nil
}

// verify tells whether the signature is of this message, by its own key and in
// its own namespace: neither is judged.
func (s *sshsig) verify(message []byte) error {
	input, err := sshsigInput(s.namespace, s.reserved, s.hash, message)
	if err != nil {
		return err
	}
	if s.key.Type() == ssh.KeyAlgoRSA && s.signature.Format != ssh.KeyAlgoRSASHA512 && s.signature.Format != ssh.KeyAlgoRSASHA256 {
		return fmt.Errorf("%w: an RSA key signs with rsa-sha2-512 or rsa-sha2-256, not with %q", errSSHSIG, s.signature.Format)
	}
	return s.key.Verify(input, s.signature)
}

// unsupportedKey is why signatures of a key are not taken, "" if they are.
func unsupportedKey(key ssh.PublicKey) string {
	switch key.Type() {
	case ssh.KeyAlgoRSA, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return ""
	}
	if _, is := key.(*ssh.Certificate); is {
		return "certificates are not supported; sign with the plain key and list that"
	}
	return "keys of type " + key.Type() + " are not supported; use ed25519, ecdsa or rsa"
}
