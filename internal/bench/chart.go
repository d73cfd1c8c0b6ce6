package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The chart's measures, in pixels.
const (
	chartLabel = 190 // room for a case's name
	chartBar   = 420 // the longest bar
	chartRow   = 34
	chartTop   = 48
)

// chart draws CPU per transaction beside PgBouncer's: two bars for each case, in shades that differ in grey too.
func (r *results) chart(p plan) []byte {
	own := p.binaries[len(p.binaries)-1].name
	var list []benchCase
	most := 0.0
	for _, c := range r.order {
		if v := r.of(c.name, own, cpu); c.kind == transactions && !math.IsNaN(v) {
			list = append(list, c)
			most = max(most, v, r.of(c.name, "PgBouncer", cpu))
		}
	}
	var b bytes.Buffer
	height := chartTop + chartRow*len(list) + 12
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" role="img" aria-label="CPU per transaction of csfproxy and PgBouncer" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="8" y="18" font-size="14" font-weight="bold">Proxy CPU per transaction, µs (shorter is better)</text>
<rect x="8" y="26" width="12" height="12" fill="#9aa5b1"/><text x="26" y="36">PgBouncer</text>
<rect x="110" y="26" width="12" height="12" fill="#1f4e79"/><text x="128" y="36">csfproxy, every statement audited, rules on</text>
`, chartLabel+chartBar+110, height)
	for i, c := range list {
		y := chartTop + chartRow*i
		fmt.Fprintf(&b, `<text x="8" y="%d">%s</text>`+"\n", y+18, html.EscapeString(c.name))
		for k, t := range []string{"PgBouncer", own} {
			v := r.of(c.name, t, cpu)
			if math.IsNaN(v) {
				continue
			}
			fill, text := "#9aa5b1", fmt.Sprintf("%.1f", v)
			if k == 1 {
				fill, text = "#1f4e79", fmt.Sprintf("%.1f  (×%.2f)", v, r.ratio(c.name, own, "PgBouncer", cpu))
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="12" fill="%s"/><text x="%.0f" y="%d" font-size="11">%s</text>`+"\n",
				chartLabel, y+2+14*k, v/most*chartBar, fill, chartLabel+v/most*chartBar+6, y+12+14*k, text)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
