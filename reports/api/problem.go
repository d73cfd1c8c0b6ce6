package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
)

// problem turns what a service said into the problem (RFC 9457) that the caller sees. Text of errors that are not
// one of the package's own stays in the process log, under the number that the caller gets.
func (s *Server) problem(ctx context.Context, err error) error {
	for sentinel, status := range map[error]int{
		ErrNotFound: http.StatusNotFound, ErrConflict: http.StatusConflict,
		ErrInvalid: http.StatusUnprocessableEntity, ErrUnavailable: http.StatusServiceUnavailable,
	} {
		if errors.Is(err, sentinel) {
			return huma.NewError(status, err.Error())
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return huma.NewError(http.StatusGatewayTimeout, "the node did not answer in time")
	}
	var known huma.StatusError
	if errors.As(err, &known) {
		return err
	}
	id := uuid.New().URN()
	s.log.LogAttrs(ctx, slog.LevelError, "a call of the API failed", slog.Any("error", err), slog.String("instance", id),
		slog.String("route", callFrom(ctx).Route))
	return &huma.ErrorModel{Status: http.StatusInternalServerError, Title: http.StatusText(http.StatusInternalServerError),
		Detail: "the node could not do this; its log says why under this instance", Instance: id}
}

// missing is the answer of a service that this node does not have.
func missing(what string) error {
	return huma.NewError(http.StatusServiceUnavailable, "this node has no "+what)
}

// writeProblem writes a problem where no handler is reached.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// The caller may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
}
