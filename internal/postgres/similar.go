package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

const (
	// maxSimilar is how many similar names are told of one.
	maxSimilar = 5
	// maxCandidates is how many names are looked for, the likest first, as counting
	// their outcomes takes as long as counting those of the name.
	maxCandidates = 20
)

// similar finds names like those with which something seems amiss, and those of them
// that are foreign for other units, and counts what arrived of them from a moment on.
// Of others nobody need know, and counting takes as long as the account of the name
// itself.
func (a *accounting) similar(ctx context.Context, tx pgx.Tx, amiss []string, foreign map[string]bool, from time.Time) (map[string][]metric.SimilarOutcomes, error) {
	all, err := readNames(ctx, tx, `SELECT name, id FROM outcome_names WHERE NOT freed`)
	if err != nil {
		return nil, err
	}
	names, like := map[int32]string{}, map[string][]string{} // Both from the other name to its own.
	for _, name := range amiss {
		if id, recorded := all[name]; recorded && foreign[name] {
			names[id] = name
		}
		for _, other := range candidates(name, all) {
			names[all[other]], like[other] = other, append(like[other], name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	var ids []int32
	for id := range names {
		ids = append(ids, id)
	}
	args := subjectQuery{args: []any{ids, a.asOf}}
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT name_id, coalesce(unit, CASE WHEN recorded_time < %s THEN '' ELSE %s END) AS unit, count(*) AS outcomes
		FROM outcomes WHERE corrects IS NULL AND name_id = ANY($1) AND recorded_time <= $2%s GROUP BY 1, 2 ORDER BY outcomes DESC, name_id, unit LIMIT 1000`,
		args.arg(a.since), args.arg(experiment.DefaultUnit), bounds(from)), args.args...)
	if err != nil {
		return nil, err
	}
	var id int32
	similar := map[string][]metric.SimilarOutcomes{}
	var found metric.SimilarOutcomes
	_, err = pgx.ForEachRow(rows, []any{&id, &found.Unit, &found.Outcomes}, func() error {
		found.Name = names[id]
		of := like[found.Name]
		if foreign[found.Name] && found.Unit != "" && found.Unit != a.study.Unit() {
			of = append(slices.Clone(of), found.Name)
		}
		for _, name := range of {
			if len(similar[name]) < maxSimilar {
				similar[name] = append(similar[name], found)
			}
		}
		return nil
	})
	return similar, err
}

// maxFieldOutcomes is of how many outcomes properties are read to find similar ones.
const maxFieldOutcomes = 10_000

// similarFields finds the properties that arrived and are like those that no outcome
// of a name has.
func (a *accounting) similarFields(ctx context.Context, tx pgx.Tx, unmet []metric.Need) (map[metric.Need][]string, error) {
	similar := map[metric.Need][]string{}
	for _, need := range unmet {
		if need.Field == experiment.FieldValue {
			continue
		}
		rows, err := tx.Query(ctx, `SELECT DISTINCT field, 0 FROM (SELECT properties FROM outcomes WHERE corrects IS NULL AND properties IS NOT NULL
			AND name_id = $1 AND recorded_time <= $2`+bounds(a.from)+` LIMIT $3) o, jsonb_object_keys(properties) AS field`, a.names[need.Name], a.asOf, maxFieldOutcomes)
		if err != nil {
			return nil, err
		}
		fields := map[string]int32{}
		var field string
		var none int32
		if _, err := pgx.ForEachRow(rows, []any{&field, &none}, func() error {
			fields[field] = none
			return nil
		}); err != nil {
			return nil, err
		}
		found := candidates(need.Field, fields)
		similar[need] = found[:min(len(found), maxSimilar)]
	}
	return similar, nil
}

// namesAmiss are those of whose outcomes fewer than half are of subjects who are
// analysed, after exposure: what was meant may have come under another name.
func namesAmiss(names []string, placed []metric.Placed) (amiss []string) {
	all, good := map[string]int64{}, map[string]int64{}
	for i := range placed {
		p := &placed[i]
		all[p.Name] += p.Outcomes
		if p.Owner == metric.Analysed && p.Place >= 0 {
			good[p.Name] += p.Outcomes
		}
	}
	for _, name := range names {
		if 2*good[name] <= all[name] {
			amiss = append(amiss, name)
		}
	}
	return amiss
}

// candidates are the names that are like one, the likest first.
func candidates(name string, all map[string]int32) []string {
	type candidate struct {
		name     string
		distance int
	}
	var found []candidate
	for other := range all {
		if other == name {
			continue
		}
		if distance, ok := likeness(name, other); ok {
			found = append(found, candidate{other, distance})
		}
	}
	slices.SortFunc(found, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.distance, y.distance), cmp.Compare(x.name, y.name))
	})
	var names []string
	for _, c := range found[:min(len(found), maxCandidates)] {
		names = append(names, c.name)
	}
	return names
}

// likeness says whether one of two names may have been meant by the other, and how
// many letters they differ by: none if all that differs is upper and lower case or
// punctuation, else one, or two of eight and more. Names that differ in a digit,
// as those of steps do, are not alike.
func likeness(a, b string) (distance int, like bool) {
	x, y := plainName(a), plainName(b)
	if digits(x) != digits(y) {
		return 0, false
	}
	if x == y {
		return 0, true
	}
	allowed := min(len(x), len(y)) / 4
	if allowed = min(allowed, 2); max(len(x)-len(y), len(y)-len(x)) > allowed {
		return 0, false
	}
	distance = editDistance(x, y)
	return distance, distance <= allowed
}

// plainName is a name's letters and digits, in lower case.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

func digits(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return r
		}
		return -1
	}, name)
}

// editDistance is Levenshtein's: how many bytes must be changed, added or removed
// to make one text of the other.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
