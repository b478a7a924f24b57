package gcs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	gcloud "cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
	raw "google.golang.org/api/storage/v1"
)

// statusCancelled is the answer to the cancellation of a session.
const statusCancelled = 499

// call sends one request that is not the client's, and repeats it while that
// may help and ctx lasts. The response's body is read already.
func (b *Bucket) call(ctx context.Context, method, url string, body []byte, header http.Header) (*http.Response, error) {
	pause := min(250*time.Millisecond, b.cfg.MaxBackoff)
	for {
		res, err := b.callOnce(ctx, method, url, body, header)
		if err == nil || !gcloud.ShouldRetry(err) {
			return res, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
		pause = min(2*pause, b.cfg.MaxBackoff)
	}
}

func (b *Bucket) callOnce(ctx context.Context, method, url string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 && res.StatusCode != statusCancelled && res.Header.Get("X-Http-Status-Code-Override") == "" {
		return nil, googleapi.CheckResponse(res)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	answer := *res
	answer.Body = io.NopCloser(bytes.NewReader(text))
	return &answer, nil
}

// cancelSession ends a resumable session; gone says that the store confirmed
// that it ends without an object.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload
func (b *Bucket) cancelSession(ctx context.Context, session string) (gone bool, err error) {
	res, err := b.call(ctx, http.MethodDelete, session, nil, http.Header{"Content-Length": {"0"}})
	if err != nil {
		var api *googleapi.Error
		// It has ended already, the store does not say how.
		if asAPI(err, &api) && (api.Code == http.StatusNotFound || api.Code == http.StatusGone) {
			return false, nil
		}
		return false, err
	}
	return res.StatusCode == statusCancelled, nil
}

// askSession asks a session how far it is: done with the object it made, or
// not done.
// https://cloud.google.com/storage/docs/performing-resumable-uploads#status-check
func (b *Bucket) askSession(ctx context.Context, session string) (a *gcloud.ObjectAttrs, done bool, err error) {
	res, err := b.call(ctx, http.MethodPut, session, nil, http.Header{
		"Content-Range": {"bytes */*"}, "X-Guploader-No-308": {"yes"},
	})
	if err != nil {
		return nil, false, err
	}
	if res.Header.Get("X-Http-Status-Code-Override") == "308" {
		return nil, false, nil
	}
	var o raw.Object
	if err := json.NewDecoder(res.Body).Decode(&o); err != nil {
		return nil, false, fmt.Errorf("status of the upload: %w", err)
	}
	a, err = fromRaw(&o)
	return a, err == nil, err
}

// fromRaw is what the client does with an object resource, which it does not
// export.
func fromRaw(o *raw.Object) (*gcloud.ObjectAttrs, error) {
	crc, err := base64.StdEncoding.DecodeString(o.Crc32c)
	if err != nil || len(crc) != 4 || o.Generation == 0 {
		return nil, fmt.Errorf("status of the upload: no complete object resource")
	}
	a := &gcloud.ObjectAttrs{
		Bucket: o.Bucket, Name: o.Name, Generation: o.Generation, Metageneration: o.Metageneration,
		Size: int64(o.Size), CRC32C: binary.BigEndian.Uint32(crc), Etag: o.Etag, ContentType: o.ContentType,
		Metadata: o.Metadata, StorageClass: o.StorageClass, TemporaryHold: o.TemporaryHold,
		EventBasedHold: o.EventBasedHold, KMSKeyName: o.KmsKeyName, Created: parseTime(o.TimeCreated),
		CustomTime: parseTime(o.CustomTime), RetentionExpirationTime: parseTime(o.RetentionExpirationTime),
	}
	if o.Retention != nil {
		a.Retention = &gcloud.ObjectRetention{Mode: o.Retention.Mode, RetainUntil: parseTime(o.Retention.RetainUntilTime)}
	}
	return a, nil
}

// parseTime is zero for what is absent or malformed.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}
