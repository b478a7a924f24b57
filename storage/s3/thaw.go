package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pgstow/pgstow/storage"
)

// expeditedBusy is the code for want of capacity; the other tiers have some.
const expeditedBusy = "GlacierExpeditedRetrievalNotAvailable"

// thawTiers are the tiers as S3 names them.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
var thawTiers = map[storage.ThawTier]types.Tier{
	storage.ThawExpedited: types.TierExpedited,
	storage.ThawStandard:  types.TierStandard,
	storage.ThawBulk:      types.TierBulk,
}

// thawState is what HEAD says about a class that has to be thawed. Only the name
// of the class tells: MinIO shows that of its tier, and reads from a tier named
// GLACIER all the same.
func thawState(class types.StorageClass, archive types.ArchiveStatus, restore string) storage.Thaw {
	t := storage.Thaw{Cold: class == types.StorageClassGlacier || class == types.StorageClassDeepArchive || archive != ""}
	t.Ongoing = restoreField(restore, "ongoing-request") == "true"
	if until, err := http.ParseTime(restoreField(restore, "expiry-date")); err == nil && t.Cold && !t.Ongoing {
		t.Until = until.UTC()
	}
	return t
}

// restoreField takes a quoted value out of the header x-amz-restore, such as
// ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT".
func restoreField(header, name string) string {
	_, value, ok := strings.Cut(header, name+`="`)
	if !ok {
		return ""
	}
	value, _, _ = strings.Cut(value, `"`)
	return value
}

// Thaw asks for a readable copy. Objects in the archive tiers of
// INTELLIGENT_TIERING move back to its first tier for good; days are not theirs.
func (b *Bucket) Thaw(ctx context.Context, key, version string, opts storage.ThawOptions) error {
	const op = "thaw"
	if err := storage.CheckKey(key); err != nil {
		return &storage.Error{Op: op, Key: key, Kind: storage.ErrInvalidKey, Err: err}
	}
	refuse := func(kind error, format string, args ...any) error {
		return &storage.Error{Op: op, Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
	}
	tier, ok := thawTiers[opts.Tier]
	if !ok {
		return refuse(storage.ErrThawTier, "unknown tier %q", opts.Tier)
	}
	if opts.Days < 1 {
		return refuse(nil, "%d days, at least one is needed", opts.Days)
	}
	request := &types.RestoreRequest{GlacierJobParameters: &types.GlacierJobParameters{Tier: tier}, Days: aws.Int32(int32(min(opts.Days, maxThawDays)))}
	head, err := b.head(ctx, key, version)
	switch {
	case err == nil && !head.Thaw.Cold:
		return refuse(errors.ErrUnsupported, "class %s is read as it is", head.StorageClass)
	case err == nil && tier == types.TierExpedited && head.deepest:
		return refuse(storage.ErrThawTier, "%s has the tiers standard (12 hours) and bulk (48 hours)", head.coldClass)
	case err == nil && head.tiering:
		request.Days = nil
	case err != nil && !isDenied(err):
		return wrap(ctx, op, key, err)
	}
	_, err = b.client.RestoreObject(ctx, &s3.RestoreObjectInput{
		Bucket: &b.cfg.Bucket, Key: &key, VersionId: optional(version), RestoreRequest: request,
	}, b.md5Only)
	switch code := errorCode(err); {
	case err == nil, code == "RestoreAlreadyInProgress":
		return nil
	case code == expeditedBusy:
		return refuse(storage.ErrThawTier, "there is no capacity for expedited thaws now; take standard or bulk: %w", readable(err))
	case code == "InvalidObjectState", code == "ObjectAlreadyInActiveTierError":
		return refuse(errors.ErrUnsupported, "%w", readable(err))
	case code == "InvalidArgument" && (mentions(err, "tier") || mentions(err, "retrieval option")):
		return refuse(storage.ErrThawTier, "%w", readable(err))
	}
	return wrap(ctx, op, key, err)
}

// maxThawDays keeps the number within what S3 reads.
const maxThawDays = 1<<31 - 1

// cold makes the refusal of a read say where the object lies and what to do: not
// everything that is read is an archive.
func (b *Bucket) cold(key, version string, err error) error {
	var state *types.InvalidObjectState
	class, request := "an archive class", "Days=7,GlacierJobParameters={Tier=Standard}"
	if errors.As(err, &state) && state.StorageClass != "" {
		class = string(state.StorageClass)
		if state.AccessTier != "" {
			class += " (" + string(state.AccessTier) + ")"
			request = "GlacierJobParameters={Tier=Standard}" // it moves back for good
		}
	}
	command := "aws s3api restore-object --bucket " + b.cfg.Bucket + " --key " + shellQuoted(key)
	if version != "" {
		command += " --version-id " + shellQuoted(version)
	}
	command += " --restore-request '" + request + "'"
	if b.cfg.Endpoint != "" {
		command += " --endpoint-url " + b.cfg.Endpoint
	}
	return &storage.Error{Op: "open", Key: key, Kind: storage.ErrCold, Err: &textError{
		text: class + "; `pgstow thaw` does that for an archive, `" + command + "` for this object alone", err: err}}
}

// shellQuoted is a word as a shell takes it.
func shellQuoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/:=+@%", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
