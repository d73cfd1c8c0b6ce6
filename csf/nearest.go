package csf

import "strings"

// nearest says what a name that does not exist may have meant: ", did you mean …?", or nothing.
func nearest(name string, known []string) string {
	best, distance := "", 1+max(2, len(name)/3)
	for _, k := range known {
		if d := distanceOf(strings.ToLower(name), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return `: did you mean "` + best + `"?`
}

// distanceOf counts the insertions, deletions and replacements between two words.
func distanceOf(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func controlIDs() []string {
	out := make([]string, len(controlTable))
	for i, c := range controlTable {
		out[i] = c.ID
	}
	return out
}

func kindNames() []string {
	out := make([]string, len(kindTable))
	for i, k := range kindTable {
		out[i] = string(k.Kind)
	}
	return out
}

func reasonNames() []string {
	out := make([]string, len(reasons))
	for i, r := range reasons {
		out[i] = string(r.Reason)
	}
	return out
}
