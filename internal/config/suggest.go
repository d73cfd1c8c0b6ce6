package config

import (
	"maps"
	"slices"
	"strings"
)

// suggest says what an unknown key may have meant: the nearest known one, or else the list of them.
func suggest[V any](name string, known map[string]V) string {
	names := slices.Sorted(maps.Keys(known))
	best, distance := "", 1+max(2, len(name)/3)
	for _, k := range names {
		if d := editDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return `did you mean "` + best + `"?`
	}
	return "known here: " + strings.Join(names, ", ")
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours between two words
// (optimal string alignment).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
