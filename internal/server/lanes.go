package server

import (
	"context"
	"math"
	"runtime/debug"

	"golang.org/x/sync/semaphore"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

const (
	// analysesAtOnce is how many analyses read events at once: each takes two of the
	// four connections that there are for them.
	analysesAtOnce = 2
	// largeAtOnce leaves one place to small analyses, so that they wait for each other
	// at most.
	largeAtOnce = 1
	// smallSubjects is how many subjects with an exposure a small analysis has at most.
	// With ten outcomes each they are read in a second.
	smallSubjects = 20_000
	// memoryShare is the part of a memory limit that one analysis may hold, so that all
	// that run at once hold a quarter.
	memoryShare = 8
	// foldStep is how many rows are read between two looks at the caller and the memory:
	// some milliseconds.
	foldStep = 1024
)

// defaultAnalysisBytes is what one analysis may hold in memory on a server without a
// memory limit: a hundred metrics that are capped by percentiles, of a million
// subjects, take 0.9 GB. A variable for tests.
var defaultAnalysisBytes int64 = 1 << 30

// lanes keep those who analyse within the connections and the memory that there are
// for them. A small analysis does not wait for large ones.
type lanes struct {
	all, large *semaphore.Weighted
	budget     int64 // Bytes for each.
}

func newLanes() *lanes {
	budget := defaultAnalysisBytes
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		budget = limit / memoryShare
	}
	return &lanes{all: semaphore.NewWeighted(analysesAtOnce), large: semaphore.NewWeighted(largeAtOnce), budget: budget}
}

// enterLane waits until events may be read for a study, and keeps the place until the
// call ends, since what was read stays in memory. It refuses what would take too much.
func (s *services) enterLane(ctx context.Context, id int32, study *metric.Study) error {
	p, _ := ctx.Value(placeKey{}).(*place)
	if p == nil {
		return nil
	}
	budget := p.work.reading.budget
	enough := int64(smallSubjects)
	if each := study.SubjectBytes(); each > 0 {
		enough = max(enough, budget/each)
	}
	exposures, err := s.DB.CountExposures(ctx, id, enough+1)
	if err != nil {
		return err
	}
	if bytes := exposures * study.SubjectBytes(); bytes > budget {
		return errTooLarge(bytes, budget)
	}
	if p.lane != nil { // An analysis that reads several times keeps its lane.
		return nil
	}
	return p.enterLane(ctx, exposures > smallSubjects)
}

// enterLane waits for the lane of large analyses first, so that those that wait take no
// place from small ones.
func (p *place) enterLane(ctx context.Context, large bool) error {
	lanes := []*semaphore.Weighted{p.work.reading.large, p.work.reading.all}
	if !large {
		lanes = lanes[1:]
	}
	for _, lane := range lanes {
		if err := lane.Acquire(ctx, 1); err != nil {
			return err
		}
		p.lane = append(p.lane, lane)
	}
	return nil
}

// within returns what a fold and those beside it call from time to time: it ends them if
// nobody waits for them any more, or if they take too much memory.
func within(ctx context.Context, folds []*metric.Fold) func() error {
	budget, step := budgetOf(ctx), pause(ctx)
	return func() error {
		var bytes int64
		for _, f := range folds {
			bytes += f.Bytes()
		}
		if bytes > budget {
			return errTooLarge(bytes, budget)
		}
		return step()
	}
}

// budgetOf is how many bytes an analysis may hold.
func budgetOf(ctx context.Context) int64 {
	if p, _ := ctx.Value(placeKey{}).(*place); p != nil {
		return p.work.reading.budget
	}
	return math.MaxInt64
}

func errTooLarge(needed, budget int64) error {
	const mebi = 1 << 20
	return experiment.Errorf(experiment.ErrTooLarge, "ANALYSIS_TOO_LARGE",
		"this analysis needs %d MiB of memory or more, and one may take %d: ask for fewer metrics or segments, define caps by values instead of percentiles, or give the server more memory",
		(needed+mebi-1)/mebi, budget/mebi)
}
