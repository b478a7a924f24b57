package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pgstow/pgstow/storage"
)

// The document goes through the SDK's client for signing, checksums and
// retries, but not through its types: what they do not model would be lost, and
// most rules in a bucket are somebody else's. It is read, cut apart and put
// together again as the bytes that the store sent.

// The rights that the two directions need, for messages.
const (
	lifecycleRead  = "s3:GetLifecycleConfiguration"
	lifecycleWrite = "s3:PutLifecycleConfiguration"
)

// LifecycleFeatures tells what lifecycle rules of S3 can say.
func (b *Bucket) LifecycleFeatures() (storage.LifecycleFeatures, bool) {
	f := storage.LifecycleFeatures{
		IDs: true, Tags: true, Noncurrent: true, Uploads: storage.UploadsByRule, MaxRules: 1000,
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-transition-general-considerations.html
		Classes: []string{"STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"},
		Limits: []string{
			"S3 counts whole days from an object's creation (of an upload in parts: from its start), rounded up to midnight UTC, and acts within a day or two after.",
			"S3 moves no object below 128 KiB, unless the bucket says otherwise.",
		},
	}
	if b.minio {
		f.Uploads = storage.UploadsByAdmin
		f.Limits = []string{
			"MinIO counts whole days from an object's creation, rounded up to midnight UTC.",
			"MinIO moves objects only to tiers that `mc ilm tier add` has made, and keeps one transition of a rule.",
		}
	}
	return f, true
}

// Lifecycle reads the bucket's lifecycle document.
func (b *Bucket) Lifecycle(ctx context.Context) (storage.Lifecycle, error) {
	doc, err := b.readLifecycle(ctx)
	if err != nil {
		return storage.Lifecycle{}, b.lifecycleError(ctx, "read lifecycle rules", lifecycleRead, err)
	}
	l := storage.Lifecycle{Revision: doc.revision()}
	if doc.minimumSize != "" {
		l.Settings = map[string]string{"TransitionDefaultMinimumObjectSize": doc.minimumSize}
	}
	for _, raw := range doc.rules {
		rule, err := parseRule(raw)
		if err != nil {
			return storage.Lifecycle{}, b.lifecycleError(ctx, "read lifecycle rules", lifecycleRead, err)
		}
		l.Rules = append(l.Rules, rule)
	}
	return l, nil
}

// SetLifecycle writes the document if it still is the one that was read. S3 has
// no precondition for it: it is read again right before.
func (b *Bucket) SetLifecycle(ctx context.Context, l storage.Lifecycle) error {
	const op = "write lifecycle rules"
	doc, err := b.readLifecycle(ctx)
	if err != nil {
		return b.lifecycleError(ctx, op, lifecycleRead, err)
	}
	if doc.revision() != l.Revision {
		return &storage.Error{Op: op, Kind: storage.ErrChanged, Err: storage.ErrChanged}
	}
	doc.rules = nil
	for _, rule := range l.Rules {
		raw := rule.Raw
		if raw == nil {
			if raw, err = encodeRule(rule); err != nil {
				return &storage.Error{Op: op, Kind: errors.ErrUnsupported, Err: err}
			}
		}
		doc.rules = append(doc.rules, raw)
	}
	switch {
	case len(doc.rules) > 0:
		err = b.putLifecycle(ctx, doc)
	case len(doc.others) > 0:
		// No rule would be left, and deleting would take the rest with it.
		return &storage.Error{Op: op, Kind: errors.ErrUnsupported,
			Err: fmt.Errorf("the lifecycle document holds more than rules (%.60q), which would be lost with the last of them; remove it by hand", doc.others)}
	case doc.exists:
		_, err = b.client.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: &b.cfg.Bucket})
	}
	return b.lifecycleError(ctx, op, lifecycleWrite, err)
}

// badRule are the answers to a document with a rule that a store cannot have.
var badRule = []string{"MalformedXML", "InvalidRequest", "InvalidArgument", "InvalidStorageClass"}

func (b *Bucket) lifecycleError(ctx context.Context, op, right string, err error) error {
	switch {
	case err == nil:
		return nil
	case isDenied(err):
		return &storage.Error{Op: op, Kind: storage.ErrPermission,
			Err: &textError{text: readable(err).Error() + "; it needs " + right, err: err}}
	case slices.Contains(badRule, errorCode(err)):
		return &storage.Error{Op: op, Err: &textError{
			text: readable(err).Error() + "; this store does not take one of the rules, nothing was changed", err: errors.Join(errors.ErrUnsupported, err)}}
	case errors.Is(kindOf(err), errors.ErrUnsupported):
		return &storage.Error{Op: op, Err: &textError{
			text: "this store has no lifecycle rules (" + readable(err).Error() + ")", err: errors.Join(errors.ErrUnsupported, err)}}
	}
	return wrap(ctx, op, "", err)
}

// lifecycleDoc is a lifecycle document cut apart.
type lifecycleDoc struct {
	exists bool
	start  []byte   // the root's start tag
	rules  [][]byte // whole elements
	others []byte   // what stands between them
	// minimumSize is the header that goes with the document: left out, it falls
	// back to the store's default.
	minimumSize string
}

func (d lifecycleDoc) bytes() []byte {
	return bytes.Join([][]byte{d.start, d.others, bytes.Join(d.rules, nil), []byte("</LifecycleConfiguration>")}, nil)
}

func (d lifecycleDoc) revision() string {
	sum := sha256.Sum256(append(d.bytes(), "\x00"+d.minimumSize...))
	return hex.EncodeToString(sum[:])
}

func (b *Bucket) readLifecycle(ctx context.Context) (lifecycleDoc, error) {
	var body []byte
	out, err := b.client.GetBucketLifecycleConfiguration(ctx,
		&s3.GetBucketLifecycleConfigurationInput{Bucket: &b.cfg.Bucket}, keepBody(&body))
	if errorCode(err) == "NoSuchLifecycleConfiguration" {
		return splitLifecycle(nil)
	}
	if err != nil {
		return lifecycleDoc{}, err
	}
	doc, err := splitLifecycle(body)
	doc.minimumSize = string(out.TransitionDefaultMinimumObjectSize)
	return doc, err
}

func (b *Bucket) putLifecycle(ctx context.Context, doc lifecycleDoc) error {
	_, err := b.client.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &b.cfg.Bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{}},
		TransitionDefaultMinimumObjectSize: types.TransitionDefaultMinimumObjectSize(doc.minimumSize),
	}, b.md5Only, sendBody(doc.bytes()))
	return err
}

// maxLifecycle is far above 1,000 rules.
const maxLifecycle = 16 * mib

// keepBody takes what the store answered, and leaves the SDK nothing to parse.
func keepBody(to *[]byte) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("pgstow:KeepBody",
				func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
					middleware.DeserializeOutput, middleware.Metadata, error) {
					out, meta, err := next.HandleDeserialize(ctx, in)
					res, ok := out.RawResponse.(*smithyhttp.Response)
					if err != nil || !ok || res.StatusCode != http.StatusOK {
						return out, meta, err
					}
					body, err := io.ReadAll(io.LimitReader(res.Body, maxLifecycle))
					if err != nil {
						return out, meta, err
					}
					res.Body.Close()
					res.Body = http.NoBody
					*to = body
					return out, meta, nil
				}), middleware.After)
		})
	}
}

// sendBody replaces what the SDK made of the input, before it is summed up and
// signed.
func sendBody(body []byte) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Serialize.Add(middleware.SerializeMiddlewareFunc("pgstow:SendBody",
				func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (
					middleware.SerializeOutput, middleware.Metadata, error) {
					req, ok := in.Request.(*smithyhttp.Request)
					if !ok {
						return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("unknown transport type %T", in.Request)
					}
					req, err := req.SetStream(bytes.NewReader(body))
					if err != nil {
						return middleware.SerializeOutput{}, middleware.Metadata{}, err
					}
					in.Request = req
					return next.HandleSerialize(ctx, in)
				}), middleware.After)
		})
	}
}
