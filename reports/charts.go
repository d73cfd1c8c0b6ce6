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

// stateChart draws the rows of a table on the summary, cut by state. Each part has its number and a place in a
// fixed order, so that it reads without colours.
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
			DataLabel:  excelize.ChartDataLabel{Font: excelize.Font{Bold: true, Size: 10, Color: p.font, Family: fontName}},
		})
	}
	gap, overlap := uint(45), 100
	b.do(b.file.AddChart(sheetSummary, cell(at, 1), &excelize.Chart{
		Type: kind, Series: series, GapWidth: &gap, Overlap: &overlap,
		Format:    excelize.GraphicOptions{AltText: title + ". " + b.model.Headline, Positioning: "oneCell"},
		Dimension: excelize.ChartDimension{Width: 1080, Height: chartHeight},
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

// timesChart draws durations of the annex, one column each, oldest left. The kinds of one chart stand together there,
// each in a column of its own, so that every duration keeps its own place on the axis.
func (b *book) timesChart(title string, kinds []string, at string) {
	first, last := 0, 0
	for i, t := range timesByChart(b.model.Times) {
		if slices.Contains(kinds, t.What) {
			if first == 0 {
				first = firstRow + 1 + i
			}
			last = firstRow + 1 + i
		}
	}
	if first == 0 {
		return
	}
	first = max(first, last-maxPoints+1)
	fills := []string{"37474F", "90CAF9"}
	axis, err := excelize.ColumnNumberToName(timesColumn(measured[0].what) + len(measured) + 2)
	b.do(err)
	var series []excelize.ChartSeries
	for i, what := range kinds {
		name, err := excelize.ColumnNumberToName(timesColumn(what))
		b.do(err)
		series = append(series, excelize.ChartSeries{
			Name:       fmt.Sprintf("'%s'!$%s$%d", sheetTimes, name, firstRow),
			Categories: fmt.Sprintf("'%s'!$%s$%d:$%[2]s$%[4]d", sheetTimes, axis, first, last),
			Values:     fmt.Sprintf("'%s'!$%s$%d:$%s$%d", sheetTimes, name, first, name, last),
			Fill:       excelize.Fill{Type: "pattern", Pattern: 1, Color: []string{fills[i]}},
		})
	}
	gap, overlap := uint(40), 100
	b.do(b.file.AddChart(sheetSummary, at, &excelize.Chart{
		Type: excelize.ColStacked, Series: series, GapWidth: &gap, Overlap: &overlap,
		Format:    excelize.GraphicOptions{AltText: title, Positioning: "oneCell"},
		Dimension: excelize.ChartDimension{Width: 530, Height: chartHeight - 90},
		Title:     chartTitle(title),
		Legend:    excelize.ChartLegend{Position: "bottom"},
		XAxis:     excelize.ChartAxis{Alignment: excelize.Alignment{TextRotation: 90}, Font: excelize.Font{Size: 8, Color: "424242", Family: fontName}},
		YAxis:     excelize.ChartAxis{MajorGridLines: true, Font: excelize.Font{Size: 9, Color: "424242", Family: fontName}},
	}))
}

// timesByChart orders durations by the chart that shows them, each chart's oldest first.
func timesByChart(times []Timing) []Timing {
	chart := func(t Timing) int {
		if t.What == TimeRespond || t.What == TimeAlert {
			return 0
		}
		return 1
	}
	out := slices.Clone(times)
	slices.SortStableFunc(out, func(a, b Timing) int { return chart(a) - chart(b) })
	return out
}

// timesColumn is the column of the annex that holds durations of a kind.
func timesColumn(what string) int {
	return 4 + slices.IndexFunc(measured, func(m measurement) bool { return m.what == what })
}
