package metric

import "slices"

// This file says what folds take in memory. Nearly all of it are the numbers of the
// subjects of metrics with percentiles, and moments.

const (
	// keptBytes is what a kept subject takes beside its numbers, in slices that are
	// copied as they grow, and keptGroup for each segment.
	keptBytes = 36
	keptGroup = 9
	// retoldBytes is what one takes again while a metric is told by day: its place in a
	// slice that doubles.
	retoldBytes = 80
	// momentsBytes is what moments take beside their numbers: slices and their slack.
	momentsBytes = 192
	// keptBlock is how many subjects' numbers lie in one slice. A single one would be
	// copied whenever it is full, and be there twice meanwhile.
	keptBlock = 4096
	// comparisonBytes is what a comparison takes with its arm: some 500 bytes as figures,
	// and as a message once it is made and once more when it is read back, 900 each, and
	// encoded, 350 where it is stored and in the answer.
	comparisonBytes = 3 << 10
)

// SubjectBytes is what a fold keeps of each subject until its end; 0 if it keeps none.
func (s *Study) SubjectBytes() int64 {
	if len(s.deferred) == 0 {
		return 0
	}
	bytes := keptBytes + keptGroup*len(s.Segments()) + 16 // All of one component's numbers are sorted.
	for _, m := range s.deferred {
		bytes += 8 * len(s.metrics[m].sources)
		if s.metrics[m].entry.retold() {
			bytes += retoldBytes
		}
	}
	return int64(bytes)
}

// ResultBytes is about what an analysis of the tally takes with its messages, or a
// timeline: nearly all of it are comparisons, of each variant by each metric in each
// value of a segment, or on each day.
func (s *Study) ResultBytes(t *Tally) int64 {
	values, comparisons := 1, 0
	for i := range t.Segments {
		values += len(t.Segments[i].Values)
	}
	for m := range s.metrics {
		cells := values
		if s.daily {
			cells = max(1, len(t.Metrics[m].Days))
		}
		if len(s.metrics[m].covariates) > 0 { // And without them.
			cells *= 2
		}
		comparisons += cells * len(s.definition.Variants)
	}
	return int64(comparisons) * comparisonBytes
}

// Bytes is about what the fold takes in memory.
func (f *Fold) Bytes() int64 {
	bytes := f.moments + f.whole.bytes + int64(len(f.kept.firsts))*f.study.SubjectBytes()
	if f.strata != nil {
		bytes += f.strata.bytes
	}
	return bytes
}

// bytes is what moments of the metric take.
func (m *compiled) bytes() int64 { return int64(8*numbersOf(m) + momentsBytes) }

// step pauses the fold, and notes if it is to end.
func (f *Fold) step() bool {
	if f.err == nil && f.Pause != nil {
		f.err = f.Pause()
	}
	return f.err == nil
}

// Err is why the fold was ended before its time. A tally of it says nothing.
func (f *Fold) Err() error { return f.err }

// row is the numbers of a kept subject.
func (k *keptRows) row(row int) []float64 {
	return k.blocks[row/keptBlock][row%keptBlock*k.width:][:k.width]
}

// next keeps one more subject, and returns the place of its numbers.
func (k *keptRows) next() []float64 {
	row := len(k.firsts) - 1
	last := row / keptBlock
	if last == len(k.blocks) {
		size := 0
		if last > 0 { // Who has filled one block will fill another.
			size = keptBlock * k.width
		}
		k.blocks = append(k.blocks, make([]float64, 0, size))
	}
	k.blocks[last] = slices.Grow(k.blocks[last], k.width)[:(row%keptBlock+1)*k.width]
	return k.row(row)
}
