package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// completionGrace is how long a completing request may still be answered after
// the caller's context has ended: its reply settles what a look-up would have
// to guess.
const completionGrace = 2 * time.Second

// errCommitted marks failures after the store has made the object visible.
var errCommitted = errors.New("the store has the object")

// commit is the request that makes an object visible, CompleteMultipartUpload
// or PutObject, with all that is needed to find out what became of it when its
// reply is lost.
type commit struct {
	b     *Bucket
	key   string
	token string
	want  content
	// send makes one attempt.
	send func(ctx context.Context) (receipt, error)
	// revoke makes requests that are still on their way fail when they arrive,
	// and says whether there was something to revoke. nil: nothing can call a
	// request back.
	revoke func(ctx context.Context) (found bool, err error)
}

// content is what the object must have.
type content struct {
	size int64
	// crc64 is the base64 CRC64NVME, or "" in the md5 profile, where etag holds
	// the ETag that follows from the MD5 sums.
	crc64 string
	etag  string
}

// receipt is what the reply to the completing request says.
type receipt struct {
	version string
	etag    string
	crc64   string // "" where the reply has none
	// encryption is what the reply shows of it.
	encryption storage.Encryption
}

// finding is what a look-up says about the key.
type finding int

const (
	ours    finding = iota
	absent          // no object under the key
	foreign         // an object of another upload
	denied          // no right to look
	unclear         // no answer
)

// run sends the completing request until its outcome is known.
func (c *commit) run(ctx context.Context) (storage.Object, error) {
	retry := patience{b: c.b}
	// unsure is set once a request may have taken effect without our knowing.
	unsure := false
	for {
		if ctx.Err() != nil && !unsure {
			return storage.Object{}, ended(ctx)
		}
		got, err := c.attempt(ctx)
		if err == nil {
			return c.confirm(ctx, got)
		}
		if !unsure && isRefusal(err) {
			return storage.Object{}, err
		}
		unsure = unsure || mayHaveWorked(err)
		if ctx.Err() != nil {
			return c.interrupted(ctx, unsure)
		}
		o, what, lookErr := c.look(ctx, "")
		if what == ours {
			return o, c.withdraw(ctx, o.Version, lookErr)
		}
		if end := c.verdict(err, what, lookErr, unsure); end != nil {
			return storage.Object{}, end
		}
		if isExpired(err) {
			c.b.renewCredentials()
		}
		if waitErr := retry.wait(ctx, err, isConflict(err) || errorCode(err) == "PreconditionFailed" || judge(err) == fewTimes); waitErr != nil {
			if ctx.Err() != nil {
				return c.interrupted(ctx, unsure)
			}
			switch {
			case unsure && what == absent:
				return c.unsettled(ctx, waitErr)
			case unsure:
				return storage.Object{}, unknown(waitErr)
			}
			return storage.Object{}, waitErr
		}
	}
}

// attempt sends once. The request outlives the caller's context by the grace.
func (c *commit) attempt(ctx context.Context) (receipt, error) {
	request, cancel := outlive(ctx, completionGrace)
	defer cancel()
	request, cancelTimeout := context.WithTimeout(request, c.b.cfg.CompleteTimeout)
	defer cancelTimeout()
	return c.send(request)
}

// verdict says whether the failure err, after which the key was found as what,
// ends the matter; nil means another attempt.
func (c *commit) verdict(err error, what finding, lookErr error, unsure bool) error {
	gone := errorCode(err) == "NoSuchUpload"
	exists := errorCode(err) == "PreconditionFailed"
	switch what {
	case foreign:
		return &textError{text: "the key is taken by another upload", err: errors.Join(storage.ErrExist, err)}
	case absent:
		if gone {
			return &textError{
				text: "the unfinished upload vanished from the store: it was aborted by someone else, or expired",
				err:  err,
			}
		}
	case denied:
		switch {
		case unsure && (gone || exists):
			return unknown(err)
		case exists:
			return &textError{text: "the key is taken", err: errors.Join(storage.ErrExist, err)}
		case gone:
			return err
		}
	case unclear:
		if gone || exists {
			return unknown(also(readable(err), lookErr))
		}
	}
	if unsure || exists || isConflict(err) || judge(err) != final {
		return nil
	}
	return err
}

// interrupted settles an outcome after the caller's context has ended.
func (c *commit) interrupted(ctx context.Context, unsure bool) (storage.Object, error) {
	if !unsure {
		return storage.Object{}, ended(ctx)
	}
	fresh, cancel := cleanup(ctx)
	defer cancel()
	o, what, err := c.look(fresh, "")
	switch what {
	case ours:
		return o, c.withdraw(ctx, o.Version, err)
	case foreign:
		return storage.Object{}, ended(ctx)
	case absent:
		return c.unsettled(ctx, ended(ctx))
	}
	return storage.Object{}, unknown(also(ended(ctx), err))
}

// unsettled is for a request that may still arrive although its object is not
// there: a proxy or a busy server may hold it for longer than anybody waits.
func (c *commit) unsettled(ctx context.Context, cause error) (storage.Object, error) {
	if c.revoke == nil {
		return storage.Object{}, unknown(cause)
	}
	found, err := c.revoke(ctx)
	switch {
	case err != nil:
		return storage.Object{}, unknown(also(cause, err))
	case found:
		return storage.Object{}, cause
	}
	// It was used up already: by the request that arrived meanwhile, or by
	// somebody's abort.
	ctx, cancel := cleanup(ctx)
	defer cancel()
	o, what, err := c.look(ctx, "")
	switch what {
	case ours:
		return o, c.withdraw(ctx, o.Version, err)
	case absent, foreign:
		return storage.Object{}, cause
	}
	return storage.Object{}, unknown(also(cause, err))
}

func unknown(err error) error {
	return &textError{
		text: "the store may or may not have the object, its reply was lost: " + readable(err).Error(),
		err:  errors.Join(storage.ErrUnknownOutcome, err),
	}
}

// isRefusal reports an answer that excludes that the request took effect.
func isRefusal(err error) bool {
	if isConflict(err) || isExpired(err) || judge(err) != final {
		return false
	}
	switch errorCode(err) {
	case "NoSuchUpload", "PreconditionFailed":
		return false
	}
	return statusCode(err) >= 400
}

// mayHaveWorked reports a failure that can follow a request which took effect.
// A 412 to the first request cannot: nothing of ours was there before it. Nor
// can one for which no connection came about.
func mayHaveWorked(err error) bool {
	if isUnsent(err) {
		return false
	}
	s := statusCode(err)
	return s < 300 || s >= 500 && judge(err) != slower || s == http.StatusRequestTimeout
}

func isConflict(err error) bool {
	switch errorCode(err) {
	case "ConditionalRequestConflict", "OperationAborted", "Conflict":
		return true
	}
	return false
}

// look asks the store for the object and compares it. An error goes with ours
// when the content is not what was sent.
func (c *commit) look(ctx context.Context, version string) (storage.Object, finding, error) {
	head, err := c.b.head(ctx, c.key, version)
	switch {
	case err == nil:
	case errors.Is(kindOf(err), storage.ErrNotExist):
		return storage.Object{}, absent, nil
	case isDenied(err):
		return storage.Object{}, denied, nil
	default:
		return storage.Object{}, unclear, readable(err)
	}
	if head.token != c.token {
		return storage.Object{}, foreign, nil
	}
	if err := c.compare(head); err != nil {
		return head.Object, ours, &textError{text: err.Error(), err: errors.Join(err, errCommitted)}
	}
	return head.Object, ours, nil
}

// compare checks the store's account of the object against what was sent.
func (c *commit) compare(head headed) error {
	if head.Size != c.want.size {
		return fmt.Errorf("%w: the store has %d bytes, sent were %d", storage.ErrIntegrity, head.Size, c.want.size)
	}
	if c.want.crc64 == "" {
		if head.ETag != c.want.etag && !head.opaqueETag {
			return fmt.Errorf("%w: the store's ETag is %s, expected %s", storage.ErrIntegrity, head.ETag, c.want.etag)
		}
		return nil
	}
	if head.crc64 != c.want.crc64 {
		return fmt.Errorf("%w: the store shows CRC64NVME %q, sent was %s", storage.ErrIntegrity, head.crc64, c.want.crc64)
	}
	return nil
}

// confirm reads back what a clean reply announced. Where reading is denied the
// reply is all there is.
func (c *commit) confirm(ctx context.Context, got receipt) (storage.Object, error) {
	if ctx.Err() != nil {
		// Completed within the grace: the object is there, so say so.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
	}
	retry := patience{b: c.b}
	for {
		o, what, err := c.look(ctx, got.version)
		switch what {
		case ours:
			if o.Version == "" {
				o.Version = got.version
			}
			return o, c.withdraw(ctx, o.Version, err)
		case denied:
			return c.unread(got)
		case foreign:
			return storage.Object{}, &textError{
				text: "the object was replaced by another upload right after it was created",
				err:  errors.Join(storage.ErrIntegrity, errCommitted),
			}
		case absent:
			err = errors.New("the store confirmed the object and does not show it")
		}
		// Some stores show a new object only after a while.
		if waitErr := retry.wait(ctx, err, what == absent || statusCode(err)/100 == 4); waitErr != nil {
			return storage.Object{}, unknown(err)
		}
	}
}

// withdraw removes a version that is visible with the wrong content, as far as
// the store lets us; a lock keeps it, and no manifest will name it.
func (c *commit) withdraw(ctx context.Context, version string, err error) error {
	if err == nil {
		return nil
	}
	fresh, cancel := cleanup(ctx)
	defer cancel()
	if delErr := c.b.Delete(fresh, c.key, version); delErr != nil {
		return also(err, fmt.Errorf("the damaged object stays: %w", delErr))
	}
	return err
}

// unread makes the Object out of the reply alone.
func (c *commit) unread(got receipt) (storage.Object, error) {
	if got.crc64 != "" && c.want.crc64 != "" && got.crc64 != c.want.crc64 {
		return storage.Object{}, fmt.Errorf("%w: the store has CRC64NVME %s, sent was %s", storage.ErrIntegrity, got.crc64, c.want.crc64)
	}
	c.b.cfg.Log.Debug("the object cannot be read back: the right is missing", "key", c.key)
	o := storage.Object{
		Key: c.key, Version: got.version, Size: c.want.size, Latest: true, ETag: got.etag, Created: time.Now().UTC().Truncate(time.Second),
		Encryption: got.encryption,
		Denied:     []storage.Attribute{storage.AttributeRetention, storage.AttributeLegalHold, storage.AttributeTags},
	}
	if c.want.crc64 != "" {
		o.Checksum = storage.Checksum{Algorithm: "CRC64NVME", Value: c.want.crc64}
	}
	return o, nil
}
