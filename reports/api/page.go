package api

import (
	"encoding/base64"
	"fmt"
	"math"
	"sort"
	"time"
)

const (
	// DefaultLimit and MaxLimit bound the items of a page.
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Paging is the part of a query that every list has.
type Paging struct {
	Cursor string `query:"cursor" maxLength:"1024" doc:"next of the page before; left out: the first page"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Items of a page"`
}

// Page is one page of a list.
type Page[T any] struct {
	Items []T `json:"items" nullable:"false"`
	// Next is the cursor of the page after this one; left out at the end.
	Next string `json:"next,omitempty"`
}

// pageBody is the answer of a list.
type pageBody[T any] struct{ Body Page[T] }

// paged cuts a page out of a whole list. The cursor is the sort key of the last item, so that a page goes on at the
// right place however many items came or went since.
func paged[T any](items []T, key func(T) string, p Paging) (*pageBody[T], error) {
	after, err := decodeCursor(p.Cursor)
	if err != nil {
		return nil, err
	}
	sorted := make([]T, 0, len(items))
	for _, item := range items {
		if p.Cursor == "" || key(item) > after {
			sorted = append(sorted, item)
		}
	}
	sort.SliceStable(sorted, func(i, j int) bool { return key(sorted[i]) < key(sorted[j]) })
	page := Page[T]{Items: sorted}
	if len(sorted) > p.Limit {
		page.Items = sorted[:p.Limit]
		page.Next = encodeCursor(key(page.Items[p.Limit-1]))
	}
	return &pageBody[T]{Body: page}, nil
}

// newestFirst gives the sort key of something that has a time and an id.
func newestFirst(t time.Time, id string) string {
	return fmt.Sprintf("%016x %s", uint64(math.MaxInt64)-uint64(t.UnixNano()), id)
}

func encodeCursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodeCursor(cursor string) (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return "", fmt.Errorf("%w: the cursor is not one of this list", ErrInvalid)
	}
	return string(key), nil
}
