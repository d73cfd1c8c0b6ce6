package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// ParseEventID takes NODE:NUMBER apart, as the live stream and the pack name events.
func ParseEventID(id string) (node string, seq uint64, err error) {
	i := strings.LastIndexAny(id, ":/")
	if i > 0 {
		if seq, err = strconv.ParseUint(id[i+1:], 10, 64); err == nil && seq > 0 {
			return id[:i], seq, nil
		}
	}
	return "", 0, fmt.Errorf("%w: an event is named NODE:NUMBER, such as edge-1:4711", ErrInvalid)
}

// plain answers with text.
func plain(text []byte) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "text/plain; charset=utf-8")
		_, _ = hc.BodyWriter().Write(text) // a caller who is gone misses nothing
	}}
}

type eventPath struct {
	ID string `path:"id" maxLength:"200" doc:"NODE:NUMBER" example:"edge-1:4711"`
}

func (s *Server) eventProof(ctx context.Context, in *eventPath) (*huma.StreamResponse, error) {
	callFrom(ctx).Object = in.ID
	node, seq, err := ParseEventID(in.ID)
	if err != nil {
		return nil, err
	}
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	text, err := s.services.Proofs.Proof(ctx, node, seq)
	if err != nil {
		return nil, err
	}
	return plain(text), nil
}

func (s *Server) listCheckpoints(ctx context.Context, q *Paging) (*pageBody[Checkpoint], error) {
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	after := int64(-1)
	if q.Cursor != "" {
		text, err := decodeCursor(q.Cursor)
		if err == nil {
			after, err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: not a cursor of this list", ErrInvalid)
		}
	}
	list, err := s.services.Proofs.Checkpoints(ctx, after, q.Limit+1)
	if err != nil {
		return nil, err
	}
	page := Page[Checkpoint]{Items: append([]Checkpoint{}, list[:min(len(list), q.Limit)]...)}
	if len(list) > q.Limit {
		page.Next = encodeCursor(strconv.FormatInt(list[q.Limit-1].Size, 10))
	}
	return &pageBody[Checkpoint]{Body: page}, nil
}

func (s *Server) latestCheckpoint(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	c, err := s.services.Proofs.Latest(ctx)
	if err != nil {
		return nil, err
	}
	return plain([]byte(c.Note)), nil
}

type consistencyInput struct {
	Size int64 `path:"size" minimum:"1" doc:"Leaves of the later state"`
	From int64 `query:"from" minimum:"1" required:"true" doc:"Leaves of the earlier state"`
}

func (s *Server) consistencyProof(ctx context.Context, in *consistencyInput) (*huma.StreamResponse, error) {
	callFrom(ctx).Object = fmt.Sprintf("%d to %d", in.From, in.Size)
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	if in.From > in.Size {
		return nil, fmt.Errorf("%w: the earlier state is larger than the later one", ErrInvalid)
	}
	hashes, err := s.services.Proofs.Consistency(ctx, in.From, in.Size)
	if err != nil {
		return nil, err
	}
	var text []byte
	for _, h := range hashes {
		text = append(text, h.String()+"\n"...)
	}
	return plain(text), nil
}

type sampleInput struct {
	Body struct {
		Control string `json:"control" minLength:"1" maxLength:"256"`
		From    string `json:"from,omitempty" maxLength:"64" doc:"As of coverage"`
		To      string `json:"to,omitempty" maxLength:"64"`
		Count   int    `json:"count,omitempty" minimum:"1" maximum:"500" default:"25"`
		Nonce   string `json:"nonce,omitempty" maxLength:"200" doc:"Your own part of the seed"`
		Reason  string `json:"reason,omitempty" maxLength:"500"`
	}
}

func (s *Server) drawSample(ctx context.Context, in *sampleInput) (*struct{ Body Sample }, error) {
	by := actor(ctx, in.Body.Control, in.Body.Reason)
	if s.services.Proofs == nil {
		return nil, missing("transparency log")
	}
	p, err := ParsePeriod(in.Body.From, in.Body.To, s.now())
	if err != nil {
		return nil, err
	}
	sample, err := s.services.Proofs.Sample(ctx, SampleRequest{Control: in.Body.Control, Period: p, Count: in.Body.Count, Nonce: in.Body.Nonce}, by)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Sample }{sample}, nil
}

type custodyQuery struct {
	PeriodQuery
	Kind []string `query:"kind,explode" maxItems:"64" doc:"Kinds of the events; repeat it or separate by commas" example:"evidence.exported"`
	By   string   `query:"by" maxLength:"256" doc:"Person"`
	Paging
}

func (s *Server) listCustody(ctx context.Context, q *custodyQuery) (*pageBody[Custody], error) {
	if s.services.Custody == nil {
		return nil, missing("custody log")
	}
	p, err := ParsePeriod(q.From, q.To, s.now())
	if err != nil {
		return nil, err
	}
	list, next, err := s.services.Custody.Custody(ctx, CustodyQuery{Period: p, Kinds: kinds(q.Kind), By: q.By, Cursor: q.Cursor, Limit: q.Limit})
	if err != nil {
		return nil, err
	}
	return &pageBody[Custody]{Body: Page[Custody]{Items: append([]Custody{}, list...), Next: next}}, nil
}

func (s *Server) listHolds(ctx context.Context, q *Paging) (*pageBody[Hold], error) {
	if s.services.Holds == nil {
		return nil, missing("holds")
	}
	list, err := s.services.Holds.Holds(ctx)
	if err != nil {
		return nil, err
	}
	return paged(list, func(h Hold) string { return newestFirst(h.Applied, strconv.FormatInt(h.ID, 10)) }, *q)
}

type holdInput struct {
	Body struct {
		Name   string `json:"name" minLength:"1" maxLength:"200" doc:"What it is for, such as a case number"`
		From   string `json:"from" minLength:"1" maxLength:"64" doc:"As of coverage"`
		To     string `json:"to" minLength:"1" maxLength:"64"`
		Reason string `json:"reason" minLength:"1" maxLength:"500"`
	}
}

func (s *Server) applyHold(ctx context.Context, in *holdInput) (*struct{ Body Hold }, error) {
	by := actor(ctx, in.Body.Name, in.Body.Reason)
	if s.services.Holds == nil {
		return nil, missing("holds")
	}
	p, err := ParsePeriod(in.Body.From, in.Body.To, s.now())
	if err != nil {
		return nil, err
	}
	h, err := s.services.Holds.Apply(ctx, HoldRequest{Name: Clean(in.Body.Name), Period: p}, by)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Hold }{h}, nil
}

type eraseInput struct {
	Body struct {
		Kind    string `json:"kind" enum:"identity,address,session,value"`
		Subject string `json:"subject" minLength:"1" maxLength:"500" doc:"Name of the identity, address, id of the session, or a fact's exact text"`
		From    string `json:"from,omitempty" maxLength:"64" doc:"As of coverage; left out: open"`
		To      string `json:"to,omitempty" maxLength:"64"`
		Reason  string `json:"reason" minLength:"1" maxLength:"500" doc:"Stands in the log for ever: name no person"`
	}
}

// eraseSubject records the kind of subject alone: whom it was is what the erasure takes out.
func (s *Server) eraseSubject(ctx context.Context, in *eraseInput) (*struct{ Body Erasure }, error) {
	by := actor(ctx, in.Body.Kind, in.Body.Reason)
	if s.services.Erasures == nil {
		return nil, missing("erasures")
	}
	r := ErasureRequest{Kind: in.Body.Kind, Subject: in.Body.Subject}
	for _, end := range []struct {
		text string
		to   *time.Time
	}{{in.Body.From, &r.Period.From}, {in.Body.To, &r.Period.To}} {
		if end.text == "" {
			continue
		}
		t, err := ParseMoment(end.text, s.now())
		if err != nil {
			return nil, err
		}
		*end.to = t
	}
	if !r.Period.From.IsZero() && !r.Period.To.IsZero() && !r.Period.From.Before(r.Period.To) {
		return nil, fmt.Errorf("%w: the period ends before it begins", ErrInvalid)
	}
	done, err := s.services.Erasures.Erase(ctx, r, by)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Erasure }{done}, nil
}

type releaseInput struct {
	ID     int64  `path:"id" minimum:"1"`
	Reason string `query:"reason" minLength:"1" maxLength:"500" required:"true"`
}

func (s *Server) releaseHold(ctx context.Context, in *releaseInput) (*noBody, error) {
	by := actor(ctx, strconv.FormatInt(in.ID, 10), in.Reason)
	if s.services.Holds == nil {
		return nil, missing("holds")
	}
	return &noBody{}, s.services.Holds.Release(ctx, in.ID, by)
}
