package web

import (
	"fmt"
	"html/template"
	"math"
	"net/netip"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/csfproxy/csfproxy/csf"
)

// functions are what the templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"shape": shape, "class": class, "moment": moment, "since": since, "bytes": size, "facts": facts,
		"short": short, "key": random, "dict": dict, "day": func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
		"kindDoc": func(k csf.Kind) string { info, _ := k.Info(); return info.Doc },
		"clock":   clock, "iso": func(t time.Time) string { return t.UTC().Format(time.RFC3339) }, "eventLink": eventLink, "current": current,
		"tail": func(id string) string { return id[strings.LastIndexByte(id, '-')+1:] }, "words": func(w ...string) []string { return w },
		"host": host, "took": took, "rate": func(f float64) string { return strconv.FormatFloat(f, 'f', digits(f), 64) },
		"size": func(f float64) string { return size(int64(f)) }, "bytesU": func(n uint64) string { return size(int64(min(n, math.MaxInt64))) },
		"millis":  func(us int64) string { return strconv.FormatFloat(float64(us)/1000, 'f', digits(float64(us)/1000), 64) },
		"percent": percent, "expiry": expiry, "join": join,
	}
}

// shape gives each state a mark of its own, so that no state is told by colour alone.
func shape(state string) string {
	switch strings.ToUpper(state) {
	case "EFFECTIVE", "OK", "PASSED", "SUCCEEDED", "UP", "LIVE", "IN FORCE", "INCLUDED", "WITNESSED", "DONE", "VERIFIED", "COSIGNED", "PASS":
		return "●"
	case "EXCEPTION", "DEGRADED", "PAUSED", "MEDIUM", "EXPIRES SOON", "HELD":
		return "◐"
	case "FAILED", "CRITICAL", "HIGH", "OPEN", "DOWN", "ROLLED-BACK", "WOULD-FAIL", "FENCED", "EXPIRED", "ERROR", "REFUSED", "NOT VERIFIED", "INVALID", "ALARM", "FAIL":
		return "✕"
	case "STALE", "VOID", "ABANDONED":
		return "◇"
	case "SUPPORTED", "LOW", "RUNNING", "QUEUED":
		return "△"
	case "OUT OF SCOPE", "SKIPPED", "PENDING", "CLOSED", "ENDED", "CANCELLED":
		return "–"
	}
	return "○"
}

// class gives the class of the style sheet that colours the state.
func class(state string) string {
	switch shape(state) {
	case "●":
		return "good"
	case "◐", "◇":
		return "warn"
	case "✕":
		return "bad"
	case "△":
		return "info"
	}
	return "none"
}

// moment gives a time with all that is stored of it, clock to the second.
func moment(t time.Time) string { return written(t, "2006-01-02 15:04:05.000000") }

func clock(t time.Time) string { return written(t, time.DateTime) }

func written(t time.Time, form string) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format(form)
}

// eventLink gives the address of an event's page, with its time, so that the store need not look through every day.
func eventLink(e csf.Event) string {
	return "/events/" + url.PathEscape(e.Node) + "/" + strconv.FormatUint(e.Seq, 10) + "?at=" + url.QueryEscape(e.Time.UTC().Format(time.RFC3339Nano))
}

// current says whether the page of path belongs to the entry of the menu that leads to to.
func current(path, to string) bool {
	if to == "/" {
		return path == "/" || path == "/rows" || strings.HasPrefix(path, "/coverage/")
	}
	return path == to || strings.HasPrefix(path, to+"/")
}

// host gives the address without a port.
func host(client string) string {
	if ap, err := netip.ParseAddrPort(client); err == nil {
		return ap.Addr().String()
	}
	return client
}

// took gives a duration as statements have it.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// digits gives how many places after the point say something.
func digits(f float64) int {
	switch {
	case f == 0 || f >= 100:
		return 0
	case f >= 10:
		return 1
	}
	return 2
}

func percent(part, whole int64) string {
	if whole <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// expirySoon is how long before its end an approval is shown as ending.
const expirySoon = 30 * 24 * time.Hour

// expiry gives the state of an approval.
func expiry(expired bool, end, now time.Time) string {
	switch {
	case expired:
		return "expired"
	case end.Sub(now) < expirySoon:
		return "expires soon"
	}
	return "in force"
}

// join gives a list of anything in one line.
func join(list any) string {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, ", ")
	case []netip.Prefix:
		var s []string
		for _, p := range l {
			s = append(s, p.String())
		}
		return strings.Join(s, ", ")
	}
	return fmt.Sprint(list)
}

// since gives a length of time between two moments in words of one unit.
func since(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "–"
	}
	switch d := to.Sub(from); {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 72*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/unit, "KMGTPE"
	for value >= unit && len(units) > 1 {
		value, units = value/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, units[0])
}

// facts gives the facts of an event in one line, in the order of their names.
func facts(f csf.Facts) string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	sort.Strings(names)
	words := make([]string, 0, len(names))
	for _, name := range names {
		text, ok := f[name].(string)
		if !ok {
			text = fmt.Sprint(f[name])
		}
		words = append(words, name+": "+text)
	}
	return strings.Join(words, " · ")
}

// short gives the end of an id, by which people tell UUIDs of version 7 apart.
func short(id string) string {
	if len(id) > 12 {
		return "…" + id[len(id)-12:]
	}
	return id
}

// dict gives a map of names and values to a template that takes several.
func dict(pairs ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}
