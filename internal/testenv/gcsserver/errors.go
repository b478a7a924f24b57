package gcsserver

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
)

// apiError is a refusal as Cloud Storage words it.
// https://cloud.google.com/storage/docs/json_api/v1/status-codes
// https://cloud.google.com/storage/docs/xml-api/reference-status
type apiError struct {
	code    int
	reason  string
	message string
	xmlCode string // "" derives one from the status
	plain   bool   // text/plain, as the upload service answers in places
}

func badRequest(format string, args ...any) *apiError {
	return &apiError{code: http.StatusBadRequest, reason: "invalid", message: fmt.Sprintf(format, args...)}
}

func noBucket() *apiError {
	return &apiError{code: http.StatusNotFound, reason: "notFound", xmlCode: "NoSuchBucket", message: "The specified bucket does not exist."}
}

func noObject(bucket, name string) *apiError {
	return &apiError{code: http.StatusNotFound, reason: "notFound", xmlCode: "NoSuchKey", message: "No such object: " + bucket + "/" + name}
}

func conditionNotMet() *apiError {
	return &apiError{
		code: http.StatusPreconditionFailed, reason: "conditionNotMet", xmlCode: "PreconditionFailed",
		message: "At least one of the pre-conditions you specified did not hold.",
	}
}

func writeError(w http.ResponseWriter, asXML bool, e *apiError) {
	switch {
	case e.code == http.StatusNotModified:
		w.WriteHeader(e.code)
	case e.plain:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(e.code)
		fmt.Fprint(w, e.message)
	case asXML:
		writeXMLError(w, e)
	default:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.WriteHeader(e.code)
		detail := map[string]any{"message": e.message, "domain": "global", "reason": e.reason}
		writeJSONBody(w, map[string]any{"error": map[string]any{
			"code": e.code, "message": e.message, "errors": []any{detail},
		}})
	}
}

func writeXMLError(w http.ResponseWriter, e *apiError) {
	code := e.xmlCode
	if code == "" {
		code = strings.ReplaceAll(http.StatusText(e.code), " ", "")
	}
	w.Header().Set("Content-Type", "application/xml; charset=UTF-8")
	w.WriteHeader(e.code)
	fmt.Fprint(w, "<?xml version='1.0' encoding='UTF-8'?>")
	_ = xml.NewEncoder(w).Encode(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
		Details string
	}{Code: code, Message: e.message, Details: e.message})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	writeJSONBody(w, v)
}

// writeJSONBody ignores the error: a client that left cannot be told.
func writeJSONBody(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
