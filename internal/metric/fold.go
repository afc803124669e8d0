package metric

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/stats"
)

const (
	// maxSegmentValues is how many values a segment may have. Of one with more a fold
	// cannot know in time which have most subjects, and it is withheld as a whole:
	// which values came first must not decide which are shown. A second fold is told
	// them: see [Fold.Show].
	maxSegmentValues = 200
	// shownValues is how many values are then shown.
	shownValues = 20
	// maxSegmentNumbers bounds the memory that segments take in one phase, in
	// float64s, so that one analysis of many metrics cannot exhaust the server:
	// 256 MiB.
	maxSegmentNumbers = 1 << 25
	// maxStratumValues is how many values the attribute may have by which
	// subjects are stratified. With more, they are not.
	maxStratumValues = 1000
	// maxAttribute is the size up to which an attribute is a covariate. A
	// larger one counts as missing, since its square could overflow a sum.
	maxAttribute = 1e100
)

// Fold adds up subjects. It is not safe for concurrent use.
type Fold struct {
	// KeptFrom is the moment before which outcomes have been dropped. Whoever
	// sets it does so before the first Add; zero if none have.
	KeptFrom time.Time
	// OnlyKnown leaves out whoever did not count at the study's earlier moment: for
	// each metric those who were not exposed or whose window was open. It is set
	// before the first Add.
	OnlyKnown bool
	// Pause is called between the steps of Tally. An error of it ends the fold: see
	// [Fold.Err]. May be nil.
	Pause func() error

	study    *Study
	asOf     time.Time
	until    time.Time // The end of what counts: asOf, or earlier if counting has ended.
	known    time.Time // The same of the study's earlier moment.
	pauses   []Stretch
	variants map[string]int
	phases   map[int32]int        // Number → index, in the order of their coming.
	later    []laterPhases        // By phase.
	parts    int                  // How many parts of segments there are.
	subjects [][]int64            // By phase and variant.
	exposed  map[phaseDay][]int64 // By variant.
	whole    *calendar            // In strata of a phase.
	strata   *calendar            // In strata of a phase and a value; nil if the plan has no such, or they are withheld.
	values   map[string]int32
	segments []segment
	limit    int           // Of values of a segment.
	before   time.Duration // How far back covariates look.

	crossovers, unknownVariants int64
	ahead                       int64
	excluded                    map[Excluded]int64
	cut                         int64                       // Subjects of whose outcomes some may have been dropped.
	openWindows                 []int64                     // By metric.
	leftOut                     []map[LeftOutReason][]int64 // By metric; each by variant.
	followed                    []FollowUp                  // By metric; nil without pauses.
	sizes                       [][][]Size                  // By metric, variant and component of the formula.
	doubts                      []PhaseDoubts               // By metric.
	reshuffled                  bool                        // Somebody was left out for a reshuffle.

	origins [2][]float64 // By attribute and by column: the first number that came; NaN before.

	caps [][]CapTally // By metric, in the order of its caps.
	kept keptRows     // Of the deferred metrics.

	moments int64 // Bytes of those of segments.
	err     error // Of a pause.

	at      position    // The present row's.
	closed  []bool      // By metric: the present row's window is closed.
	vectors [][]float64 // By metric: the present row's components.
}

// phaseDay is a phase, as an index, and a UTC day, counted from 1970.
type phaseDay struct{ phase, day int32 }

// group is the subjects with one value of a segment. Its cells stand at
// part × variants + variant and hold moments by metric. Its subjects, whatever
// their windows, stand at phase × variants + variant. A cell without subjects may be
// nil or missing.
type group struct {
	cells    [][]stats.Moments
	subjects []int64
}

// part is what segments are compared in: a phase, as an index, and how many of the
// moves that follow it the subjects touch.
type part struct {
	phase int
	moves int32
}

type segment struct {
	values   map[string]int32 // As indices of groups.
	groups   []*group
	withheld bool
	shown    []string // The only ones to be told apart, as indices of groups: the others are together in the last. Nil for all.
}

// position is what decides where a row is counted.
type position struct {
	phase, variant int
	first          time.Time
	stays          int32   // How many of the moves that follow leave it its variant.
	moves          []int32 // By metric: how many it touches.
	value          int32   // Of the stratum.
	groups         []int32 // By segment; −1 where it is withheld.
}

// NewFold starts a fold of what is known at a moment, which decides whether a
// subject's window is closed.
func (s *Study) NewFold(asOf time.Time) *Fold {
	f := &Fold{
		study: s, asOf: asOf, until: s.Until(asOf), known: s.Until(s.earlier), pauses: s.pauses(asOf),
		variants:    map[string]int{},
		phases:      map[int32]int{},
		whole:       s.newCalendar(),
		values:      map[string]int32{},
		exposed:     map[phaseDay][]int64{},
		excluded:    map[Excluded]int64{},
		segments:    make([]segment, len(s.Segments())),
		limit:       s.segmentLimit(),
		openWindows: make([]int64, len(s.metrics)),
		leftOut:     make([]map[LeftOutReason][]int64, len(s.metrics)),
		closed:      make([]bool, len(s.metrics)),
		doubts:      make([]PhaseDoubts, len(s.metrics)),
	}
	if s.Stratum() != "" {
		f.strata = s.newCalendar()
	}
	for i, v := range s.definition.Variants {
		f.variants[v.Key] = i
	}
	for i := range f.segments {
		f.segments[i].values = map[string]int32{}
	}
	for _, c := range s.columns {
		f.before = max(f.before, c.Before)
	}
	for i := range s.metrics {
		f.vectors = append(f.vectors, make([]float64, len(s.metrics[i].sources)))
		f.caps = append(f.caps, s.metrics[i].newCaps())
		f.sizes = append(f.sizes, s.metrics[i].newSizes(len(s.definition.Variants)))
	}
	for _, m := range s.deferred {
		f.kept.width += len(f.vectors[m])
	}
	if len(f.pauses) > 0 {
		f.followed = make([]FollowUp, len(s.metrics))
	}
	f.origins = [2][]float64{unknownNumbers(len(s.attributes)), unknownNumbers(len(s.columns))}
	f.at.groups = make([]int32, len(f.segments))
	f.at.moves = make([]int32, len(s.metrics))
	return f
}

// unknownNumbers are n numbers that have not come yet.
func unknownNumbers(n int) []float64 { return slices.Repeat([]float64{math.NaN()}, n) }

// segmentLimit is how many values a segment may have in this study. It depends
// on nothing that rows bring.
func (s *Study) segmentLimit() int {
	return min(maxSegmentValues, maxSegmentNumbers/max(s.numbers()*len(s.segments), 1))
}

// stratumLimit is the same of the attribute by which subjects are stratified.
func (s *Study) stratumLimit() int {
	return min(maxStratumValues, maxCalendarNumbers/max(s.numbers(), 1))
}

// numbers is how many float64s the moments of all metrics and variants are in
// one phase.
func (s *Study) numbers() int {
	numbers := 0
	for i := range s.metrics {
		numbers += numbersOf(&s.metrics[i])
	}
	return numbers * len(s.definition.Variants)
}

// Add takes in one subject.
func (f *Fold) Add(row *Row) {
	if f.OnlyKnown && row.KnownExposure.IsZero() {
		return
	}
	if row.Crossover {
		f.crossovers++
		f.exclude(ExclusionCrossover, row)
		return
	}
	variant, ok := f.variants[string(row.Variant)]
	if !ok && slices.Contains(f.study.conduct.Removed, string(row.Variant)) {
		f.exclude(ExclusionRemovedVariant, row)
		return
	}
	if !ok {
		f.unknownVariants++
		f.exclude(ExclusionUnknownVariant, row)
		return
	}
	phase, ok := f.phases[row.Phase]
	if !ok {
		phase = len(f.subjects)
		f.phases[row.Phase] = phase
		f.later = append(f.later, f.laterThan(row.Phase))
		f.subjects = append(f.subjects, make([]int64, len(f.variants)))
	}
	f.subjects[phase][variant]++
	f.ahead += int64(ordinal(row.Ahead))
	if row.FirstExposure.Add(-f.before).Before(f.KeptFrom) {
		f.cut++
		f.exclude(ExclusionOutcomesDropped, row)
	}
	f.locate(row, phase, variant)
	f.read(row)
	f.applyCaps()
	f.take()
}

// locate finds where the row is counted, and counts it there whatever its
// windows.
func (f *Fold) locate(row *Row, phase, variant int) {
	f.at.phase, f.at.variant, f.at.first = phase, variant, row.FirstExposure
	f.at.stays = f.stays(phase, f.study.definition.Variants[variant].Key, row.Bucket)
	f.stratify(row)
	for i := range f.segments {
		f.at.groups[i] = f.segments[i].find(row.Segments[i], f.limit)
		if at := f.at.groups[i]; at >= 0 {
			f.segments[i].groups[at].count(f.cellOf(&f.at))
		}
	}
	day := phaseDay{int32(phase), dayOf(row.FirstExposure)}
	if f.exposed[day] == nil {
		f.exposed[day] = make([]int64, len(f.variants))
	}
	f.exposed[day][variant]++
}

// cellOf is the index of a position's phase and variant.
func (f *Fold) cellOf(p *position) int { return p.phase*len(f.variants) + p.variant }

// take adds the present row's components up where the row belongs, for those
// metrics whose window is closed.
func (f *Fold) take() {
	at := &f.at
	f.measure()
	f.whole.add(stratum{phase: int32(at.phase)}, at, f.closed, f.vectors)
	if f.strata != nil {
		f.strata.add(stratum{phase: int32(at.phase), value: at.value}, at, f.closed, f.vectors)
	}
	for i, group := range at.groups[:len(f.study.segments)] {
		if group < 0 || f.segments[i].withheld {
			continue
		}
		var cell []stats.Moments
		moves := int32(-1)
		for m := range f.vectors {
			if !f.closed[m] {
				continue
			}
			if at.moves[m] != moves {
				moves = at.moves[m]
				cell = f.cell(f.segments[i].groups[group], part{at.phase, moves}, at.variant)
			}
			cell[m].Add(f.vectors[m])
		}
	}
}

// read gathers the row's components by metric. The numbers of a covariate that may
// be missing are counted from the first that came, which changes nothing that is
// told of a covariate: where it is missing a 0 stands, and far from all others, as
// beside the seconds since 1970, that would cost the others their digits.
func (f *Fold) read(row *Row) {
	for m := range f.study.metrics {
		metric := &f.study.metrics[m]
		if f.closed[m] = f.windowClosed(row, metric.entry.closes); !f.closed[m] {
			f.openWindows[m]++
			continue
		}
		f.at.moves[m] = f.touched(f.at.phase, f.at.first, metric.entry.closes)
		if f.at.moves[m] > f.at.stays {
			f.closed[m] = false
			f.leaveOut(m, Moved)
			f.reshuffled = f.reshuffled || f.later[f.at.phase].moves[f.at.stays].Reshuffled
			continue
		}
		if !f.fill(f.vectors[m], metric.sources, row) {
			f.closed[m] = false
			f.leaveOut(m, NoOutcome)
			continue
		}
		f.follow(m, row)
		f.notePhases(m, row)
	}
}

// fill reads a metric's components from the row. It is false if the subject lacks
// a number that the metric is made of.
func (f *Fold) fill(vector []float64, sources []source, row *Row) (complete bool) {
	complete = true
	for i, source := range sources {
		var x float64
		var origin *float64
		switch source.kind {
		case fromValue:
			vector[i] = row.Values[source.index]
			complete = complete && !math.IsNaN(vector[i])
			continue
		case fromAttribute, fromMissing:
			x, origin = row.AttributeNumbers[source.index], &f.origins[0][source.index]
		case fromPast, fromNoPast:
			x, origin = row.Values[source.index], &f.origins[1][source.index]
		}
		missing := !(math.Abs(x) <= maxAttribute)
		switch indicator := source.kind == fromMissing || source.kind == fromNoPast; {
		case !indicator && !missing:
			if math.IsNaN(*origin) {
				*origin = x
			}
			vector[i] = x - *origin
		case indicator && missing:
			vector[i] = 1
		default:
			vector[i] = 0
		}
	}
	return complete
}

// leaveOut counts the present row among those that do not count for a metric.
func (f *Fold) leaveOut(m int, reason LeftOutReason) {
	if f.leftOut[m] == nil {
		f.leftOut[m] = map[LeftOutReason][]int64{}
	}
	if f.leftOut[m][reason] == nil {
		f.leftOut[m][reason] = make([]int64, len(f.variants))
	}
	f.leftOut[m][reason][f.at.variant]++
}

// stratify finds the row's stratum, unless strata are withheld.
func (f *Fold) stratify(row *Row) {
	if f.strata == nil {
		return
	}
	value, ok := f.values[string(row.Stratum)]
	if !ok {
		if len(f.values) == f.study.stratumLimit() {
			f.strata = nil
			return
		}
		value = int32(len(f.values))
		f.values[string(row.Stratum)] = value
	}
	f.at.value = value
}

// find returns the group of a value, which it makes if it is new: −1 if that is
// one too many, and the segment is withheld.
func (s *segment) find(value []byte, limit int) int32 {
	if s.withheld {
		return -1
	}
	at, ok := s.values[string(value)]
	if !ok && s.shown != nil {
		return int32(len(s.shown))
	}
	if !ok {
		if len(s.groups) == limit {
			s.withheld, s.values, s.groups = true, nil, nil
			return -1
		}
		at = int32(len(s.groups))
		s.values[string(value)] = at
		s.groups = append(s.groups, new(group))
	}
	return at
}

// count counts a subject of a cell.
func (g *group) count(cell int) {
	for cell >= len(g.subjects) {
		g.subjects = append(g.subjects, 0)
	}
	g.subjects[cell]++
}

// cell returns a cell of a group, which it makes if it is new.
func (f *Fold) cell(g *group, in part, variant int) []stats.Moments {
	p := &f.later[in.phase].parts[in.moves]
	if *p < 0 {
		*p = f.parts
		f.parts++
	}
	at := *p*len(f.variants) + variant
	for at >= len(g.cells) {
		g.cells = append(g.cells, nil)
	}
	if g.cells[at] == nil {
		g.cells[at] = make([]stats.Moments, len(f.study.metrics))
		for m := range g.cells[at] {
			g.cells[at][m] = stats.NewMoments(len(f.study.metrics[m].sources))
			f.moments += f.study.metrics[m].bytes()
		}
	}
	return g.cells[at]
}

// Tally ends the fold.
func (f *Fold) Tally() *Tally {
	f.replay()
	if f.err != nil {
		return &Tally{}
	}
	t := &Tally{
		Phases:          slices.Sorted(maps.Keys(f.phases)),
		Crossovers:      f.crossovers,
		UnknownVariants: f.unknownVariants,
		Cut:             f.cut,
		Ahead:           f.ahead,
		Excluded:        f.excludedSubjects(),
		KeptFrom:        f.KeptFrom,
		CountingEnd:     f.study.CountingEnd(f.asOf),
		Pauses:          len(f.pauses),
	}
	for _, v := range f.study.definition.Variants {
		t.Variants = append(t.Variants, v.Key)
	}
	for _, phase := range t.Phases {
		t.Subjects = append(t.Subjects, f.subjects[f.phases[phase]])
	}
	t.Exposed = f.exposedDays(t.Phases)
	t.Reshuffled = f.reshuffled
	for _, p := range f.study.begun(f.asOf) {
		if p.Dilutes != "" && !slices.Contains(t.Dilutions, p.Dilutes) {
			t.Dilutions = append(t.Dilutions, p.Dilutes)
		}
	}
	for i := range f.segments {
		if values := f.segmentValues(i, t.Phases); i < len(f.study.segments) {
			t.Segments = append(t.Segments, values)
		} else {
			t.Counted = append(t.Counted, values)
		}
	}
	var parts []part
	if parts, t.Parts = f.segmentParts(t.Phases); len(parts) == len(t.Phases) {
		t.Parts = nil
	}
	all, places := f.layOut(t)
	for m := range f.study.metrics {
		if !f.step() {
			return t
		}
		metric, days := &f.study.metrics[m], all.days(m, places)
		var weeks []Day
		if metric.entry.dated && !metric.entry.byExposure {
			weeks = metric.weeks(days, len(t.Variants), len(t.Strata))
		}
		if metric.entry.retold() {
			f.retell(m, all, places, days)
		}
		t.Metrics = append(t.Metrics, f.metricTally(m, t, parts, days))
		t.Metrics[m].Weeks = weeks
	}
	return t
}

// layOut decides by which strata all subjects are told, and returns their
// calendar with the place of each stratum in the tally.
func (f *Fold) layOut(t *Tally) (all *calendar, places map[stratum]int) {
	all = f.whole
	values := []string{""}
	if f.strata != nil {
		all = f.strata
		values = slices.Sorted(maps.Keys(f.values))
	} else if f.study.Stratum() != "" {
		t.StratumLimit = f.study.stratumLimit()
	}
	places = map[stratum]int{}
	for _, phase := range t.Phases {
		for moves := range f.mostMoves(phase) + 1 {
			for _, value := range values {
				s := stratum{int32(f.phases[phase]), f.values[value], moves}
				if f.strata == nil {
					s.value = 0
				}
				if all.strata[s] {
					places[s] = len(t.Strata)
					t.Strata = append(t.Strata, Stratum{Phase: phase, Value: value, Moves: moves})
				}
			}
		}
	}
	return all, places
}

// mostMoves is how many moves follow a phase.
func (f *Fold) mostMoves(phase int32) int32 { return int32(len(f.later[f.phases[phase]].moves)) }

// segmentParts lays out the parts of segments, in the order of the strata: every
// phase, and what touches moves that follow it.
func (f *Fold) segmentParts(phases []int32) (parts []part, strata []Stratum) {
	for _, phase := range phases {
		for moves := range f.mostMoves(phase) + 1 {
			p := part{f.phases[phase], moves}
			if moves == 0 || f.later[p.phase].parts[moves] >= 0 {
				parts, strata = append(parts, p), append(strata, Stratum{Phase: phase, Moves: moves})
			}
		}
	}
	return parts, strata
}

// exposedDays lays out the subjects by the day of their first exposure.
func (f *Fold) exposedDays(phases []int32) []ExposedDay {
	var days []ExposedDay
	for _, phase := range phases {
		index := int32(f.phases[phase])
		for at, subjects := range f.exposed {
			if at.phase == index {
				days = append(days, ExposedDay{Day: at.day, Phase: phase, Subjects: subjects})
			}
		}
	}
	slices.SortFunc(days, func(a, b ExposedDay) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Phase, b.Phase))
	})
	return days
}

func (f *Fold) segmentValues(i int, phases []int32) SegmentValues {
	values := SegmentValues{Attribute: f.study.Segments()[i]}
	if f.segments[i].withheld {
		values.Limit = f.limit
		return values
	}
	values.Values = slices.Sorted(maps.Keys(f.segments[i].values))
	if values.Rest = f.segments[i].shown != nil; values.Rest {
		values.Values = append(values.Values, "")
	}
	for j := range values.Values {
		g := f.groupOf(i, &values, j)
		byPhase := make([][]int64, len(phases))
		for p, phase := range phases {
			byPhase[p] = make([]int64, len(f.variants))
			if from := f.phases[phase] * len(f.variants); from < len(g.subjects) {
				copy(byPhase[p], g.subjects[from:])
			}
		}
		values.Subjects = append(values.Subjects, byPhase)
	}
	return values
}

// groupOf is the group of the j-th value of a segment.
func (f *Fold) groupOf(segment int, of *SegmentValues, j int) *group {
	s := &f.segments[segment]
	if of.Rest && j == len(of.Values)-1 {
		return s.groups[len(s.shown)]
	}
	return s.groups[s.values[of.Values[j]]]
}

// Overflown lists the segments that are withheld, as they have too many values, each
// with how many of its values may be shown.
func (f *Fold) Overflown() map[string]int {
	over := map[string]int{}
	for i := range f.segments {
		if f.segments[i].withheld {
			over[f.study.Segments()[i]] = min(shownValues, f.limit-1)
		}
	}
	return over
}

// Show has the fold tell apart some values of a segment alone, and count all others
// together. It is called before the first Add.
func (f *Fold) Show(attribute string, values []string) {
	s := &f.segments[slices.Index(f.study.Segments(), attribute)]
	s.shown = append([]string{}, values...)
	for i, value := range values {
		s.values[value] = int32(i)
	}
	for range len(values) + 1 {
		s.groups = append(s.groups, new(group))
	}
}

func (f *Fold) metricTally(m int, t *Tally, parts []part, days []Day) MetricTally {
	metric := &f.study.metrics[m]
	tally := MetricTally{
		Metric: metric.Metric.Key, Revision: metric.Metric.Revision,
		OpenWindows: f.openWindows[m], Caps: f.caps[m], LeftOut: f.leftOut[m], Sizes: f.sizes[m], Doubts: f.doubts[m],
		Whole: metric.noArms(len(t.Variants), len(t.Strata)),
	}
	for i := range days {
		tally.Whole.take(&days[i])
	}
	if metric.entry.dated {
		tally.Days = days
	}
	if f.followed != nil {
		tally.FollowUp = f.followed[m]
	}
	for i, s := range t.Segments {
		var arms []Arms
		for j := range s.Values {
			arms = append(arms, f.arms(f.groupOf(i, &s, j), m, parts))
		}
		tally.Segments = append(tally.Segments, arms)
	}
	return tally
}

// arms lays out a segment's moments of one metric by variant and part.
func (f *Fold) arms(g *group, m int, parts []part) Arms {
	arms := f.study.metrics[m].noArms(len(f.variants), len(parts))
	for v := range arms {
		for i, p := range parts {
			known := f.later[p.phase].parts[p.moves]
			if at := known*len(f.variants) + v; known >= 0 && at < len(g.cells) && g.cells[at] != nil {
				arms[v][i] = g.cells[at][m]
			}
		}
	}
	return arms
}
