package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

func (s *Server) reports(ctx context.Context) ([]Report, error) {
	if s.services.Reports == nil {
		return nil, missing("reports")
	}
	return s.services.Reports.Reports(ctx)
}

func (s *Server) listReports(ctx context.Context, q *Paging) (*pageBody[Report], error) {
	all, err := s.reports(ctx)
	if err != nil {
		return nil, err
	}
	return paged(all, func(r Report) string { return newestFirst(r.Created, r.ID) }, *q)
}

func (s *Server) getReport(ctx context.Context, in *IDPath) (*struct{ Body Report }, error) {
	callFrom(ctx).Object = in.ID
	all, err := s.reports(ctx)
	return one(all, err, "report", in.ID, func(r Report) string { return r.ID })
}

type reportInput struct {
	KeyHeader
	Body struct {
		Format string `json:"format" enum:"xlsx,json,html,pdf,oscal,pack" doc:"oscal is a zip archive of a component definition and assessment results; pdf needs Chromium on the node's machine; pack is an evidence pack"`
		From   string `json:"from,omitempty" maxLength:"64" doc:"As of coverage"`
		To     string `json:"to,omitempty" maxLength:"64"`
		Reason string `json:"reason,omitempty" maxLength:"500"`

		Depth    string `json:"depth,omitempty" enum:"executive,owner,full" doc:"Of html and pdf: one page, for control owners, or everything (default)"`
		Events   bool   `json:"events,omitempty" doc:"Of xlsx: list the single events that break a control, stand under an exception or show a control at work"`
		Previous string `json:"previous,omitempty" maxLength:"64" doc:"Of a pack: id of the pack that it continues; left out: the newest one"`
		Mapping  string `json:"mapping,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9.]*$" doc:"Version of the mapping, of those that the program carries; left out: the configured one"`
	}
}

func (s *Server) makeReport(ctx context.Context, in *reportInput) (*struct{ Body Report }, error) {
	by := actor(ctx, in.Body.Format, in.Body.Reason)
	if s.services.Reports == nil {
		return nil, missing("reports")
	}
	p, err := ParsePeriod(in.Body.From, in.Body.To, s.now())
	if err != nil {
		return nil, err
	}
	r, err := s.services.Reports.Make(ctx, ReportRequest{Format: in.Body.Format, Period: p, Mapping: in.Body.Mapping, Depth: in.Body.Depth, Events: in.Body.Events,
		Previous: in.Body.Previous, Key: in.Key}, by)
	if err != nil {
		return nil, err
	}
	callFrom(ctx).Object = r.ID
	return &struct{ Body Report }{r}, nil
}

// downloadReport sends a report's file. An HTML report comes as a download too: it is not to run on this origin.
func (s *Server) downloadReport(ctx context.Context, in *IDPath) (*huma.StreamResponse, error) {
	callFrom(ctx).Object = in.ID
	if s.services.Reports == nil {
		return nil, missing("reports")
	}
	report, file, err := s.services.Reports.Open(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if s.services.Recorder != nil {
		if err := s.services.Recorder.Record(ctx, Export(report, callFrom(ctx).Person)); err != nil {
			file.Close()
			return nil, fmt.Errorf("%w: the export could not be recorded: %w", ErrUnavailable, err)
		}
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer file.Close()
		_, w := humachi.Unwrap(hc)
		WriteReport(w, report, file)
	}}, nil
}

// Export is the event of a report or pack that leaves as a file.
func Export(r Report, by Person) csf.Event {
	return csf.Event{Kind: csf.EvidenceExported, Facts: csf.Facts{"by": by.Name, "role": string(by.Role), "report": r.ID, "format": r.Format, "sha256": r.SHA256,
		"from": r.Period.From.Format(time.RFC3339), "to": r.Period.To.Format(time.RFC3339)}}
}

func (s *Server) cancelReport(ctx context.Context, in *killRequest) (*noBody, error) {
	by := actor(ctx, in.ID, in.Reason)
	all, err := s.reports(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.ID == in.ID && r.By != by.Name && !by.Role.May(RoleOperator) {
			return nil, huma.NewError(http.StatusForbidden, "the report is "+Clean(r.By)+"'s: an operator can stop it")
		}
	}
	return &noBody{}, s.services.Reports.Cancel(ctx, in.ID, by)
}

func (s *Server) verifyReport(ctx context.Context, in *IDPath) (*struct{ Body Verification }, error) {
	by := actor(ctx, in.ID, "")
	if s.services.Reports == nil {
		return nil, missing("reports")
	}
	v, err := s.services.Reports.Verify(ctx, in.ID, by)
	return &struct{ Body Verification }{v}, err
}

// WriteReport answers with a report's file as a download.
func WriteReport(w http.ResponseWriter, r Report, file io.Reader) {
	contentType, extension := "application/octet-stream", r.Format
	switch r.Format {
	case "xlsx":
		contentType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case "json":
		contentType = "application/json"
	case "html":
		contentType = "text/html; charset=utf-8"
	case "pdf":
		contentType = "application/pdf"
	case "oscal":
		contentType, extension = "application/zip", "oscal.zip"
	case "pack":
		contentType, extension = "application/zip", "pack.zip"
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=\"csfproxy-%s-%s.%s\"",
		r.Period.From.Format("20060102"), r.Period.To.Format("20060102"), extension))
	if r.Bytes > 0 {
		h.Set("Content-Length", strconv.FormatInt(r.Bytes, 10))
	}
	if _, err := io.Copy(w, file); err != nil {
		panic(http.ErrAbortHandler) // half a report must not look like a whole one
	}
}
