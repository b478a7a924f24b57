package archiver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/pgstow/pgstow/storage"
)

// ResultAdded is the result of a RecordRekey.
const ResultAdded = "added"

// RekeyedHeader is an age header for the file key of an object that is encrypted
// already. It stands in for the object's own header, its first Replaces bytes:
// header and all bytes behind these are an age file with the same content, for
// other recipients.
type RekeyedHeader struct {
	Object   string `json:"object"` // name below the archive's key
	Replaces int64  `json:"replaces"`
	Header   string `json:"header"`
}

// RekeyOptions say to whom an archive is opened.
type RekeyOptions struct {
	Bucket     storage.Bucket
	Ref, Name  string
	Recipients Recipients // those who are added
	Identities Identities // of one who can read it now
	Trust      Trust      // whose archives are opened to others
	Signer     Signer     // signs the record; nil leaves it unsigned
	By         string     // who, recorded
	Reason     string     // one line, recorded; may be empty
	Pgstow     string     // this program's version
	Log        *slog.Logger
	Now        func() time.Time
}

// RekeyResult is an archive that more people can read.
type RekeyResult struct {
	ID    string `json:"id"`
	Label string `json:"label"`
	Key   string `json:"key"`
	// Added are the recipients that were given; Recipients are those to whom the
	// objects themselves are encrypted, and who can read them ever after.
	Added      []string `json:"added"`
	Recipients []string `json:"recipients"`
	Record     string   `json:"record"` // name of the record
	ReadBack   string   `json:"read_back"`
}

// Rekey adds recipients to an encrypted archive. Its objects, which may be
// locked, stay as they are: a record beside them carries, for each, a header for
// the same file key. Nobody is removed by that, and nobody can be: who could
// read the archive still can.
func Rekey(ctx context.Context, opts RekeyOptions) (*RekeyResult, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	a, err := findKept(ctx, opts.Bucket, opts.Ref, opts.Name, opts.Log)
	if err != nil {
		return nil, err
	}
	a.now = opts.Now().UTC().Add(-opts.Bucket.Capabilities().ClockSkew)
	r := rekeying{keptArchive: a, opts: opts}
	res, err := r.run(ctx)
	if err != nil {
		return nil, causeOf(ctx, fmt.Errorf("archive %s: %w", a.entry.ID, err))
	}
	return res, nil
}

func (o RekeyOptions) check() error {
	if o.Recipients.IsZero() {
		return fmt.Errorf("%w: to whom? Give --encrypt-to", ErrUsage)
	}
	if o.Identities.IsZero() {
		return fmt.Errorf("%w: only who can read the archive can let others read it; give --identity", ErrUsage)
	}
	if o.Reason != "" {
		if err := checkWords("the reason", o.Reason, maxReason); err != nil {
			return err
		}
	}
	return checkWords("who it is", o.By, maxBy)
}

// rekeying is one Rekey.
type rekeying struct {
	*keptArchive
	opts RekeyOptions
}

func (r *rekeying) run(ctx context.Context) (*RekeyResult, error) {
	switch {
	case r.m == nil:
		return nil, integrity("its manifest cannot be understood")
	case len(r.m.Recipients) == 0:
		return nil, fmt.Errorf("%w: it is not encrypted: everybody who can fetch it can read it, and that cannot be changed later; archive anew with --encrypt-to", ErrUsage)
	}
	if _, err := r.opts.Trust.trusted(ctx, r.bucket, r.entry, ManifestName, r.raw); err != nil {
		return nil, err
	}
	if cold := thawState(r.all); cold != nil && !cold.Until.After(r.now) {
		return nil, fmt.Errorf("%w: its dump lies in %s, and the header that holds its key with it; `pgstow thaw %s --wait` makes it readable (%s), then run this again",
			storage.ErrCold, cold.Class, r.entry.ID, thawTimesText(cold.Class))
	}
	record := Record{
		Kind: RecordRekey, ManifestSHA256: hexSum(r.raw), By: r.opts.By, Reason: r.opts.Reason,
		Result: ResultAdded, Pgstow: r.opts.Pgstow, Recipients: r.opts.Recipients.Texts(),
	}
	objects := r.m.Objects
	for _, o := range []*StoredObject{&objects.Dump, objects.Index, objects.Globals} {
		if o == nil {
			continue
		}
		h, err := r.header(ctx, o)
		if err != nil {
			return nil, err
		}
		record.Headers = append(record.Headers, h)
	}
	written, err := putRecord(ctx, r.bucket, r.entry, record, r.opts.Signer, r.all, r.kept(), r.opts.Now())
	if err != nil {
		return nil, err
	}
	res := &RekeyResult{
		ID: r.entry.ID, Label: r.entry.Label, Key: r.entry.Key, Added: record.Recipients, Recipients: r.m.Recipients,
		Record: written.Name, ReadBack: ReadBackDone,
	}
	return res, r.readBackRecord(ctx, written, record, res)
}

// header is the object's age header for the new recipients.
func (r *rekeying) header(ctx context.Context, o *StoredObject) (RekeyedHeader, error) {
	u := unsealer{bucket: r.bucket, entry: r.entry, ids: r.opts.Identities}
	name := strings.TrimPrefix(o.Key, r.entry.Key)
	version := o.Version
	if version == "" {
		version = r.entry.version(name)
	}
	own, err := u.header(ctx, o, version)
	if err != nil {
		return RekeyedHeader{}, err
	}
	key, err := u.fileKey(ctx, o, own)
	if err != nil {
		return RekeyedHeader{}, err
	}
	header, err := ageHeader(key, r.opts.Recipients, postQuantum(own))
	if err != nil {
		return RekeyedHeader{}, err
	}
	return RekeyedHeader{Object: name, Replaces: int64(len(own)), Header: string(header)}, nil
}

// readBackRecord compares what is stored with what was meant.
func (r *rekeying) readBackRecord(ctx context.Context, o storedRecord, want Record, res *RekeyResult) error {
	raw, err := readSmall(ctx, r.bucket, r.entry.dir().Key(o.Name), o.Version, maxRecord)
	var got *Record
	if err == nil {
		got, err = decodeRecord(raw, r.entry.dir(), o.Name)
	}
	switch {
	case errors.Is(err, storage.ErrPermission):
		res.ReadBack = ReadBackDenied
	case err != nil:
		return fmt.Errorf("read back the record: %w", err)
	case !slices.Equal(got.Headers, want.Headers) || !slices.Equal(got.Recipients, want.Recipients):
		return integrity("record %s differs from what was written", o.Name)
	}
	return nil
}

// ageHeader writes a header of age-encryption.org/v1 for a file key that is in
// use already; the age library makes headers for new ones alone. It is held
// against that library's reading before it is given out.
func ageHeader(key []byte, to Recipients, wasPostQuantum bool) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("age-encryption.org/v1\n")
	for i, one := range to.list {
		stanzas, labels, err := wrap(one, key)
		if err != nil {
			return nil, refusedRecipients(err)
		}
		switch pq := slices.Contains(labels, "postquantum"); {
		case wasPostQuantum && !pq:
			return nil, fmt.Errorf("%w: recipient %s: the archive is encrypted to post-quantum recipients, and this one would make it as weak as the others; give an age1pq1… one", ErrUsage, BriefRecipient(to.texts[i]))
		case len(to.list) > 1 && len(labels) > 0 && !pq:
			return nil, fmt.Errorf("%w: recipient %s wants to be the only one", ErrUsage, BriefRecipient(to.texts[i]))
		}
		for _, s := range stanzas {
			writeStanza(&b, s)
		}
	}
	b.WriteString("---")
	secret, err := hkdf.Key(sha256.New, key, nil, "header", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the header's key: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(b.Bytes())
	fmt.Fprintf(&b, " %s\n", base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
	if err := provesKey(b.Bytes(), key); err != nil {
		return nil, fmt.Errorf("the new header is none that age reads: %w", err)
	}
	return b.Bytes(), nil
}

func wrap(to age.Recipient, key []byte) (stanzas []*age.Stanza, labels []string, err error) {
	if r, ok := to.(age.RecipientWithLabels); ok {
		return r.WrapWithLabels(key)
	}
	stanzas, err = to.Wrap(key)
	return stanzas, nil, err
}

// writeStanza writes one recipient's part: base64 in lines of 64 characters, the
// last of which is shorter, and may be empty.
func writeStanza(b *bytes.Buffer, s *age.Stanza) {
	fmt.Fprintf(b, "-> %s\n", strings.Join(append([]string{s.Type}, s.Args...), " "))
	const columns = 64
	body := base64.RawStdEncoding.EncodeToString(s.Body)
	for len(body) >= columns {
		b.WriteString(body[:columns] + "\n")
		body = body[columns:]
	}
	b.WriteString(body + "\n")
}

// provesKey reports whether a header was made with this file key: its MAC is
// keyed with it.
func provesKey(header, key []byte) error {
	_, err := age.DecryptHeader(header, age.NewInjectedFileKeyIdentity(key))
	return err
}

// postQuantum tells headers that no quantum computer opens, by the types of their
// recipients' parts.
func postQuantum(header []byte) bool {
	for line := range strings.Lines(string(header)) {
		kind, ok := strings.CutPrefix(line, "-> ")
		kind, _, _ = strings.Cut(strings.TrimSpace(kind), " ")
		if ok && kind != "" && !strings.HasPrefix(kind, "mlkem768") && !strings.HasSuffix(kind, "-grease") {
			return false
		}
	}
	return true
}

// rekeyed looks for a header that rekey has put beside an object, and proves the
// key in it by the object's own header. The texts are of those whom such headers
// are for; without a key there is none for these identities.
func (u unsealer) rekeyed(ctx context.Context, o *StoredObject, own []byte) (key []byte, others []string, err error) {
	// Nobody's word is needed for a header: it is proved by the object's own.
	records, err := readRecords(ctx, u.bucket, u.entry, RecordRekey, Trust{})
	if err != nil {
		return nil, nil, fmt.Errorf("read records: %w", err)
	}
	name := strings.TrimPrefix(o.Key, u.entry.Key)
	var unread, unasked, wrong error
	for _, r := range records {
		if r.Record == nil {
			unread = errors.Join(unread, errors.New(r.Error))
			continue
		}
		others = append(others, r.Record.Recipients...)
		for _, h := range r.Record.Headers {
			if h.Object != name {
				continue
			}
			key, err := u.ids.open([]byte(h.Header))
			switch {
			case errors.Is(err, ErrIdentity):
				continue
			case errors.Is(err, ErrUsage):
				unasked = named(o.Key, err)
				continue
			// Whoever may write can put a wrong one before a good one.
			case err != nil:
				wrong = cmp.Or(wrong, named(r.Name, err))
				continue
			case h.Replaces != int64(len(own)) || provesKey(own, key) != nil:
				wrong = cmp.Or(wrong, integrity("%s: the key that %s gives for it is not the one of its own header: one of the two was changed", o.Key, r.Name))
				continue
			}
			return key, nil, nil
		}
	}
	switch {
	case unasked != nil:
		return nil, nil, unasked
	case wrong != nil:
		return nil, nil, wrong
	case unread != nil:
		return nil, nil, notDecrypted("%s: none of the identities given opens it, and of the headers that rekey has added some cannot be read: %s",
			o.Key, oneLine(unread))
	}
	return nil, others, nil
}
