package reports

import (
	"fmt"
	"slices"

	"github.com/csfproxy/csfproxy/csf"
	"github.com/xuri/excelize/v2"
)

// chartRows is how many rows of the summary a chart covers; a row is 20 pixels high.
const (
	chartRows   = 20
	chartHeight = 390
)

// maxPoints is how many durations a chart shows: the newest.
const maxPoints = 60

// stateChart draws the rows of a table on the summary, cut by state. Each part has its number, a line around it and a
// place in a fixed order, so that it reads without colours.
func (b *book) stateChart(title string, kind excelize.ChartType, head, first, last, at int, reverse bool) {
	var series []excelize.ChartSeries
	names := "B"
	if kind == excelize.ColStacked {
		names = "A"
	}
	for i, s := range csf.States() {
		name, err := excelize.ColumnNumberToName(3 + i)
		b.do(err)
		p := palette[s]
		series = append(series, excelize.ChartSeries{
			Name:       fmt.Sprintf("%s!$%s$%d", sheetSummary, name, head),
			Categories: fmt.Sprintf("%s!$%s$%d:$%s$%d", sheetSummary, names, first, names, last),
			Values:     fmt.Sprintf("%s!$%s$%d:$%s$%d", sheetSummary, name, first, name, last),
			Fill:       excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{p.fill}},
			Line:       excelize.LineOptions{Type: excelize.LineSolid, Width: 0.75, Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"546E7A"}}},
			DataLabel:  excelize.ChartDataLabel{Font: excelize.Font{Bold: true, Size: 10, Color: p.font, Family: fontName}},
		})
	}
	gap, overlap := uint(45), 100
	b.do(b.file.AddChart(sheetSummary, cell(at, 1), &excelize.Chart{
		Type: kind, Series: series, GapWidth: &gap, Overlap: &overlap,
		Format:    excelize.GraphicOptions{AltText: title + ". " + b.model.Headline, Positioning: "oneCell"},
		Dimension: excelize.ChartDimension{Width: 1040, Height: chartHeight},
		Title:     chartTitle(title),
		Legend:    excelize.ChartLegend{Position: "bottom"},
		XAxis:     excelize.ChartAxis{ReverseOrder: reverse, Font: excelize.Font{Size: 10, Color: "000000", Family: fontName}},
		YAxis:     excelize.ChartAxis{Font: excelize.Font{Size: 9, Color: "424242", Family: fontName}},
		PlotArea:  excelize.ChartPlotArea{ShowVal: true, NumFmt: excelize.ChartNumFmt{CustomNumFmt: "0;;;"}},
	}))
}

func chartTitle(s string) excelize.ChartTitle {
	return excelize.ChartTitle{Paragraph: []excelize.RichTextRun{{Text: s, Font: &excelize.Font{Bold: true, Size: 12, Family: fontName}}}}
}

// timesChart draws durations of the annex, one column each, oldest left.
func (b *book) timesChart(title string, kinds []string, at string, width uint) {
	fills := []string{"37474F", "90CAF9"}
	var series []excelize.ChartSeries
	for i, what := range kinds {
		first, last := 0, 0
		for j, t := range timesByKind(b.model.Times) {
			if t.What == what {
				if first == 0 {
					first = firstRow + 1 + j
				}
				last = firstRow + 1 + j
			}
		}
		if first == 0 {
			continue
		}
		first = max(first, last-maxPoints+1)
		series = append(series, excelize.ChartSeries{
			Name:       fmt.Sprintf("'%s'!$A$%d", sheetTimes, first),
			Categories: fmt.Sprintf("'%s'!$G$%d:$G$%d", sheetTimes, first, last),
			Values:     fmt.Sprintf("'%s'!$D$%d:$D$%d", sheetTimes, first, last),
			Fill:       excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{fills[i]}},
			Line:       excelize.LineOptions{Type: excelize.LineSolid, Width: 0.75, Fill: excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{"263238"}}},
		})
	}
	if len(series) == 0 {
		return
	}
	gap := uint(60)
	b.do(b.file.AddChart(sheetSummary, at, &excelize.Chart{
		Type: excelize.Col, Series: series, GapWidth: &gap,
		Format:    excelize.GraphicOptions{AltText: title, Positioning: "oneCell"},
		Dimension: excelize.ChartDimension{Width: width, Height: chartHeight - 70},
		Title:     chartTitle(title),
		Legend:    excelize.ChartLegend{Position: "bottom"},
		XAxis:     excelize.ChartAxis{Font: excelize.Font{Size: 9, Color: "424242", Family: fontName}},
		YAxis:     excelize.ChartAxis{MajorGridLines: true, Font: excelize.Font{Size: 9, Color: "424242", Family: fontName}},
	}))
}

// timesByKind orders durations by kind, each oldest first, so that a chart's values stand together.
func timesByKind(times []Timing) []Timing {
	order := map[string]int{}
	for i, m := range measured {
		order[m.what] = i
	}
	out := slices.Clone(times)
	slices.SortStableFunc(out, func(a, b Timing) int { return order[a.What] - order[b.What] })
	return out
}
