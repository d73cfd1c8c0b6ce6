package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

const (
	// streamHeartbeat is how often an idle live stream says that it lives.
	streamHeartbeat = 15 * time.Second
	// streamWrite is how long a reader of a live stream may hold up one message.
	streamWrite = 10 * time.Second
)

// streamEvents sends the events that match as they happen, in the form of the HTML standard's section 9.2
// (text/event-stream): id NODE:SEQ, event KIND, data the event. A reader who does not keep up gets an event "lost"
// with their number.
func (s *Server) streamEvents(ctx context.Context, in *EventFilter) (*huma.StreamResponse, error) {
	if s.services.Stream == nil {
		return nil, missing("live stream")
	}
	q := in.query()
	sub, err := s.services.Stream.Subscribe(q.Matches)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer sub.Close()
		// The record of the call does not wait for the reader to leave.
		call := callFrom(ctx)
		call.Status, call.done = http.StatusOK, true
		s.guard.Record(ctx, *call)

		_, w := humachi.Unwrap(hc)
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		send := func(format string, args ...any) bool {
			_ = control.SetWriteDeadline(time.Now().Add(streamWrite)) // httptest's recorder has none
			_, err := fmt.Fprintf(w, format, args...)
			return err == nil && control.Flush() == nil
		}
		heartbeat := time.NewTicker(streamHeartbeat)
		defer heartbeat.Stop()
		for ok := send(": csfproxy\n\n"); ok; {
			select {
			case <-ctx.Done():
				return
			case <-s.closing.Done():
				return
			case <-heartbeat.C:
				ok = send(": alive\n\n")
			case e := <-sub.C:
				if n := sub.Lost(); n > 0 {
					ok = send("event: lost\ndata: {\"events\":%d}\n\n", n)
				}
				data, err := json.Marshal(View(e))
				if err != nil { // facts that JSON cannot hold
					data, _ = json.Marshal(map[string]string{"error": err.Error()})
				}
				ok = ok && send("id: %s:%d\nevent: %s\ndata: %s\n\n", Clean(e.Node), e.Seq, Clean(string(e.Kind)), data)
			}
		}
	}}, nil
}
