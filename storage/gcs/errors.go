package gcs

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	gcloud "cloud.google.com/go/storage"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"github.com/pgstow/pgstow/storage"
)

// errNoAnswer is the cause of our own deadlines, as opposed to the caller's.
type errNoAnswer struct{ after time.Duration }

func (e errNoAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.after) }

// credentialsError is a failure to find or to use credentials.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string {
	return oneLine(e.err.Error()) + "; run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached"
}

func (e *credentialsError) Unwrap() error { return e.err }

func noCredentials(err error) error { return &credentialsError{err} }

// sdkError says in one line what an error of the client means, without the
// URLs it quotes: a session's URL is a credential.
type sdkError struct {
	text string
	err  error
}

func (e *sdkError) Error() string { return e.text }
func (e *sdkError) Unwrap() error { return e.err }

// fail wraps an error of the client once, for a caller whose context is ctx.
func (b *Bucket) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	var done *storage.Error
	if errors.As(err, &done) {
		return err
	}
	kind := kindOf(op, key, err)
	err = &sdkError{text: describe(err), err: err}
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		if _, ours := cause.(errNoAnswer); !ours { //nolint:errorlint // set by us, never wrapped
			// What the client says is only an echo of the context's end.
			return &storage.Error{Op: op, Key: key, Err: cause}
		}
		kind = storage.ErrUnavailable
		if !errors.Is(err, context.DeadlineExceeded) || describe(err) == context.DeadlineExceeded.Error() {
			err = cause
		}
	}
	return &storage.Error{Op: op, Key: key, Kind: kind, Err: err}
}

// kindOf finds the sentinel for an error of the client.
// https://cloud.google.com/storage/docs/json_api/v1/status-codes
func kindOf(op, key string, err error) error {
	var api *googleapi.Error
	var creds *credentialsError
	switch {
	case errors.As(err, &creds):
		return storage.ErrCredentials
	case errors.As(err, &api):
		return kindOfStatus(op, key, api)
	case errors.Is(err, gcloud.ErrBucketNotExist):
		return storage.ErrBucketNotExist
	case errors.Is(err, gcloud.ErrObjectNotExist):
		return storage.ErrNotExist
	case strings.Contains(err.Error(), "storage: bad CRC on read"): // the client has no type for it
		return storage.ErrIntegrity
	case isCredentials(err):
		return storage.ErrCredentials
	case isTransport(err):
		return storage.ErrUnavailable
	}
	return nil
}

func kindOfStatus(op, key string, e *googleapi.Error) error {
	text := apiText(e)
	switch {
	case e.Code == http.StatusUnauthorized:
		return storage.ErrCredentials
	case e.Code == http.StatusForbidden && isLocked(e):
		return storage.ErrLocked
	case e.Code == http.StatusForbidden:
		for _, item := range e.Errors {
			if strings.HasSuffix(item.Reason, "ateLimitExceeded") {
				return storage.ErrUnavailable
			}
		}
		return storage.ErrPermission
	case e.Code == http.StatusNotFound && (key == "" || strings.Contains(strings.ToLower(text), "bucket does not exist")):
		return storage.ErrBucketNotExist
	case (e.Code == http.StatusNotFound || e.Code == http.StatusGone) && op == "put":
		return storage.ErrUnavailable // the session has gone
	case e.Code == http.StatusNotFound:
		return storage.ErrNotExist
	case e.Code == http.StatusPreconditionFailed && op == "put":
		return storage.ErrExist
	case e.Code == http.StatusPreconditionFailed:
		return storage.ErrChanged
	case e.Code == http.StatusRequestedRangeNotSatisfiable:
		return storage.ErrRange
	case e.Code == http.StatusBadRequest && strings.Contains(text, "doesn't match calculated"):
		return storage.ErrIntegrity
	case e.Code == http.StatusRequestTimeout, e.Code == http.StatusTooManyRequests, e.Code >= 500:
		return storage.ErrUnavailable
	}
	return nil
}

// isLocked tells a protected object from a missing right, both 403. A hold is
// documented as objectUnderActiveHold but comes with the reason "forbidden" and
// says what it is in its message only.
func isLocked(e *googleapi.Error) bool {
	text := apiText(e)
	for _, item := range e.Errors {
		if item.Reason == "retentionPolicyNotMet" || item.Reason == "objectUnderActiveHold" {
			return true
		}
	}
	return strings.Contains(text, "is under active ") && strings.Contains(text, " hold ") ||
		strings.Contains(text, "retention policy or object retention") ||
		strings.Contains(text, "retention configuration that does not permit")
}

func isCredentials(err error) bool {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) {
		return refused.Response == nil || refused.Response.StatusCode < 500
	}
	var other *auth.Error
	if errors.As(err, &other) {
		return other.Response == nil || other.Response.StatusCode < 500
	}
	return strings.Contains(err.Error(), "could not find default credentials") ||
		strings.Contains(err.Error(), "oauth2: ")
}

func isTransport(err error) bool {
	var netErr net.Error
	var urlErr *url.Error
	return errors.As(err, &urlErr) || errors.As(err, &netErr) || gcloud.ShouldRetry(err) || errors.Is(err, context.DeadlineExceeded)
}

// describe gives the essence of an error in one line.
func describe(err error) string {
	var api *googleapi.Error
	var u *url.Error
	switch {
	case errors.As(err, &api):
		text := fmt.Sprintf("HTTP %d %s", api.Code, apiText(api))
		switch {
		case api.Code == http.StatusUnauthorized:
			text += "; renew the credentials (gcloud auth application-default login)"
		case api.Code == http.StatusNotFound && strings.Contains(text, "upload session"),
			api.Code == http.StatusGone:
			text += "; the upload session has expired or was cancelled, start again"
		}
		return oneLine(text)
	case errors.As(err, &u):
		host := ""
		if parsed, perr := url.Parse(u.URL); perr == nil {
			host = " " + parsed.Host
		}
		return oneLine(strings.ToLower(u.Op) + host + ": " + describe(u.Err))
	}
	return oneLine(err.Error())
}

// apiText is the server's own message: JSON is parsed by the client, XML is
// not.
func apiText(e *googleapi.Error) string {
	if e.Message != "" {
		return e.Message
	}
	var body struct{ Code, Message, Details string }
	if xml.Unmarshal([]byte(e.Body), &body) == nil && body.Code != "" {
		return strings.TrimSpace(body.Code + ": " + body.Message + " " + body.Details)
	}
	text := strings.TrimSpace(e.Body)
	if text == "" {
		text = http.StatusText(e.Code)
	}
	return text
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 500
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
