package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pgstow/pgstow/storage"
)

// kinds maps S3 error codes, as AWS and the compatibles send them, to what
// callers decide on.
var kinds = map[string]error{
	"NoSuchKey":     storage.ErrNotExist,
	"NoSuchVersion": storage.ErrNotExist,
	"NotFound":      storage.ErrNotExist, // HEAD has no body and so no better code

	"NoSuchBucket":      storage.ErrBucketNotExist,
	"InvalidBucketName": storage.ErrInvalidBucket,

	"PreconditionFailed":         storage.ErrExist, // where Put sends If-None-Match
	"ConditionalRequestConflict": storage.ErrExist,

	"AccessDenied":       storage.ErrPermission,
	"Forbidden":          storage.ErrPermission,
	"AllAccessDisabled":  storage.ErrPermission,
	"AccountProblem":     storage.ErrPermission,
	"NotSignedUp":        storage.ErrPermission,
	"UnauthorizedAccess": storage.ErrPermission,
	"InvalidPayer":       storage.ErrPermission,

	"KMS.DisabledException":        storage.ErrPermission,
	"KMS.InvalidStateException":    storage.ErrPermission,
	"KMS.KMSInvalidStateException": storage.ErrPermission,
	"KMS.NotFoundException":        errors.ErrUnsupported,
	"KMS.InvalidKeyUsageException": errors.ErrUnsupported,
	"KMS.ThrottlingException":      storage.ErrUnavailable,

	"InvalidAccessKeyId":           storage.ErrCredentials,
	"SignatureDoesNotMatch":        storage.ErrCredentials,
	"ExpiredToken":                 storage.ErrCredentials,
	"ExpiredTokenException":        storage.ErrCredentials,
	"TokenRefreshRequired":         storage.ErrCredentials,
	"InvalidToken":                 storage.ErrCredentials,
	"InvalidClientTokenId":         storage.ErrCredentials,
	"UnrecognizedClientException":  storage.ErrCredentials,
	"InvalidSecurity":              storage.ErrCredentials,
	"AuthorizationHeaderMalformed": storage.ErrCredentials,
	"RequestTimeTooSkewed":         storage.ErrCredentials,
	"XMinioInvalidAccessKeyId":     storage.ErrCredentials,

	"ObjectLocked":       storage.ErrLocked,
	"ObjectUnderHold":    storage.ErrLocked,
	"InvalidObjectState": storage.ErrCold,

	"InvalidRange": storage.ErrRange,

	"BadDigest":                   storage.ErrIntegrity,
	"InvalidDigest":               storage.ErrIntegrity,
	"XAmzContentChecksumMismatch": storage.ErrIntegrity,
	"XAmzContentSHA256Mismatch":   storage.ErrIntegrity,

	"SlowDown":                       storage.ErrUnavailable,
	"SlowDownRead":                   storage.ErrUnavailable,
	"SlowDownWrite":                  storage.ErrUnavailable,
	"ServiceUnavailable":             storage.ErrUnavailable,
	"InternalError":                  storage.ErrUnavailable,
	"RequestTimeout":                 storage.ErrUnavailable,
	"QuotaExceeded":                  storage.ErrUnavailable,
	"XMinioAdminBucketQuotaExceeded": storage.ErrUnavailable,
	"XMinioStorageFull":              storage.ErrUnavailable,
	"StorageFull":                    storage.ErrUnavailable,
	"EntityTooLarge":                 storage.ErrUnavailable,

	"NotImplemented":                       errors.ErrUnsupported,
	"InvalidStorageClass":                  errors.ErrUnsupported,
	"InvalidBucketState":                   errors.ErrUnsupported,
	"ObjectLockConfigurationNotFoundError": errors.ErrUnsupported,
	"NoSuchObjectLockConfiguration":        errors.ErrUnsupported,
}

// hints say what to do about an error, by code.
var hints = map[string]string{
	"InvalidAccessKeyId":           "check the access key of the AWS credential chain",
	"SignatureDoesNotMatch":        "check the secret key of the AWS credential chain",
	"ExpiredToken":                 "renew the session's credentials",
	"RequestTimeTooSkewed":         "set this machine's clock",
	"AuthorizationHeaderMalformed": "check region= in the bucket URL",
	"XAmzContentChecksumMismatch":  "a store without CRC64NVME needs checksum=md5 in the bucket URL",
	"InvalidStorageClass":          "the store does not know this storage class",
	"KMS.DisabledException":        "enable the KMS key, or name another with --sse kms:KEY",
	"KMS.InvalidStateException":    "the KMS key cannot be used now; name another with --sse kms:KEY",
	"KMS.KMSInvalidStateException": "the KMS key cannot be used now; name another with --sse kms:KEY",
	"KMS.NotFoundException":        "the key service has no such key in the bucket's region",
	"InvalidBucketName":            "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens",

	"QuotaExceeded":                  "free space in the store, or have the quota raised",
	"XMinioAdminBucketQuotaExceeded": "free space in the store, or have the quota raised",
	"XMinioStorageFull":              "free space in the store",
	"StorageFull":                    "free space in the store",
}

func errorCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// statusCode is 0 where no response came.
func statusCode(err error) int {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil {
		return re.HTTPStatusCode()
	}
	return 0
}

func responseHeader(err error, name string) string {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil {
		return re.Response.Header.Get(name)
	}
	return ""
}

// kindOf finds the sentinel of an SDK error.
func kindOf(err error) error {
	code := errorCode(err)
	switch {
	case code == "InvalidRequest" && isLockMessage(err), code == "AccessDenied" && isLockMessage(err):
		return storage.ErrLocked
	case code == "InvalidRequest" && mentions(err, "object lock configuration"):
		return errors.ErrUnsupported // lock headers for a bucket that has no lock
	case code == "InvalidArgument" && mentions(err, "version id"):
		return storage.ErrNotExist // no version of this store looks like that
	}
	if kind, ok := kinds[code]; ok {
		return kind
	}
	if isKMS(code) && statusCode(err) == http.StatusNotFound {
		return errors.ErrUnsupported // the key is what is not there
	}
	switch s := statusCode(err); {
	case s == http.StatusUnauthorized:
		return storage.ErrCredentials
	case s == http.StatusForbidden:
		return storage.ErrPermission
	case s == http.StatusNotFound && code != "NoSuchUpload":
		return storage.ErrNotExist
	case s == http.StatusRequestedRangeNotSatisfiable:
		return storage.ErrRange
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return storage.ErrUnavailable
	case s == http.StatusNotImplemented:
		return errors.ErrUnsupported
	case s >= 500:
		return storage.ErrUnavailable
	case s == 0 && isTransport(err):
		return storage.ErrUnavailable
	}
	return nil
}

// isLockMessage recognises a refusal by retention or hold: AWS and versitygw
// send AccessDenied, MinIO InvalidRequest, and only the message tells.
func isLockMessage(err error) bool {
	return mentions(err, "object lock") && !mentions(err, "configuration") ||
		mentions(err, "worm protected") || mentions(err, "legal hold") || mentions(err, "object is locked") ||
		mentions(err, "protected by") || mentions(err, "under retention")
}

func mentions(err error, phrase string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && strings.Contains(strings.ToLower(api.ErrorMessage()), phrase)
}

// isTransport reports whether no valid answer came: connection, name, TLS.
func isTransport(err error) bool {
	var send *smithyhttp.RequestSendError
	var netErr net.Error
	return errors.As(err, &send) || errors.As(err, &netErr) || errors.Is(err, errNoProgress) || errors.Is(err, errNoAnswer)
}

// isUnsent reports that no connection came about, so that nothing was sent.
func isUnsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isCertificate reports a server that is not who it should be; trying again
// does not help.
func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host)
}

// wrap makes an error of this package: sentinel, readable text, cause.
func wrap(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	var done *storage.Error
	if errors.As(err, &done) {
		return err
	}
	err = blame(ctx, err)
	kind := kindOf(err)
	var reading *sourceError
	callers := errors.As(err, &reading) || ctx.Err() != nil && errors.Is(err, context.Cause(ctx))
	if callers || errors.Is(err, kind) {
		kind = nil // nobody's fault here, or its text is in err already
	}
	return &storage.Error{Op: op, Key: key, Kind: kind, Err: readable(err)}
}

// blame names the end of ctx as the reason where it is: what the SDK makes of
// it is noise. What the source said stays: it may be why ctx ended.
func blame(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, storage.ErrUnknownOutcome) || errors.Is(err, errCommitted) {
		return err
	}
	var told *textError
	if errors.As(err, &told) && errors.Is(told, context.Cause(ctx)) {
		return err
	}
	var reading *sourceError
	if errors.As(err, &reading) {
		return also(err, ended(ctx))
	}
	return ended(ctx)
}

// ended is the cause of ctx's end, under which ctx.Err() stays reachable.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	return &textError{text: cause.Error(), err: errors.Join(cause, ctx.Err())}
}

// textError has its own text in front of a chain.
type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.err }

// sourceError is what the caller's side of a Put said. It may be a network error
// of the source, for which the store must not be blamed.
type sourceError struct {
	what string
	err  error
}

func (e *sourceError) Error() string { return e.what + ": " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// also joins a second error to the first, in one line.
func also(err, second error) error {
	switch {
	case second == nil:
		return err
	case err == nil:
		return second
	}
	return &textError{text: err.Error() + "; " + second.Error(), err: errors.Join(err, second)}
}

// readable gives an SDK error a text for people: code, message and one request
// id, instead of every layer's own account.
func readable(err error) error {
	var done *textError
	if errors.As(err, &done) {
		return err
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return &textError{text: apiText(err, api), err: err}
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		return &textError{text: transportText(send.Err), err: err}
	}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		return &textError{text: op.Err.Error(), err: err}
	}
	return err
}

func apiText(err error, api smithy.APIError) string {
	text := api.ErrorCode()
	message := strings.TrimRight(strings.Join(strings.Fields(api.ErrorMessage()), " "), ".")
	if message != "" && message != text {
		text += ": " + message
	}
	if hint := hintOf(err); hint != "" {
		text += "; " + hint
	}
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		text += fmt.Sprintf(" (HTTP %d", statusCode(err))
		if id := re.ServiceRequestID(); id != "" {
			text += ", request " + id
		}
		text += ")"
	}
	return text
}

// isKMS reports a code of the key service: AWS's "KMS.X", MinIO's "kms:X".
func isKMS(code string) bool {
	return strings.HasPrefix(strings.Replace(strings.ToLower(code), ":", ".", 1), "kms.")
}

func hintOf(err error) string {
	if isKMS(errorCode(err)) && statusCode(err) == http.StatusNotFound {
		return hints["KMS.NotFoundException"]
	}
	if errorCode(err) == "AccessDenied" && (mentions(err, "kms:") || mentions(err, "customer master key") || mentions(err, "ciphertext refers to")) {
		return "the KMS key has to grant kms:GenerateDataKey, and for uploads in parts kms:Decrypt, to these credentials"
	}
	return hints[errorCode(err)]
}

func transportText(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "cannot resolve host " + dns.Name + ": " + dns.Err
	}
	// url.Error repeats the whole URL; what follows names the address.
	var u *url.Error
	if errors.As(err, &u) {
		text := u.Err.Error()
		if !strings.ContainsAny(text, "0123456789") {
			if parsed, perr := url.Parse(u.URL); perr == nil {
				text = parsed.Host + ": " + text
			}
		}
		return text
	}
	return err.Error()
}
