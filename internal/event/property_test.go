package event

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Whatever callers, sizes, poison and outages come together: a caller's results
// are those of its own items, in order; every acknowledged item was committed
// exactly once; every best-effort item was committed or counted as lost.
func TestManyCallers(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testManyCallers(t, seed) })
		})
	}
}

// A test item tells its own fate by its last digit.
func fate(item int) experiment.Result {
	switch item % 10 {
	case 1, 2:
		return experiment.Duplicate
	case 3:
		return experiment.Conflict
	case 4:
		if item%1000 == 4 {
			return experiment.Refused
		}
	}
	return experiment.Recorded
}

func testManyCallers(t *testing.T, seed uint64) {
	var mu sync.Mutex
	outages := rand.New(rand.NewPCG(seed, 0))
	s := &store{answer: func(items []int) ([]experiment.Result, error) {
		mu.Lock()
		out := outages.IntN(8) == 0
		mu.Unlock()
		if out {
			return nil, experiment.ErrUnavailable
		}
		results := make([]experiment.Result, len(items))
		for i, item := range items {
			if results[i] = fate(item); results[i] == experiment.Refused {
				return nil, ErrPoison
			}
		}
		return results, nil
	}}
	lost := 0
	var bestEffort []int
	w, stop := start(t, s, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		lost += n
	})
	acknowledged := map[int]bool{}
	var wg sync.WaitGroup
	for caller := range 40 {
		random := rand.New(rand.NewPCG(seed, uint64(caller)+1))
		wg.Go(func() {
			next := caller * 1_000_000
			for range 10 {
				items := numbers(next, random.IntN(200))
				next += len(items)
				time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
				if caller%4 == 0 {
					if !w.TryWrite(items) {
						t.Error("TryWrite refused")
					}
					mu.Lock()
					bestEffort = append(bestEffort, items...)
					mu.Unlock()
					continue
				}
				results, err := w.Write(t.Context(), items)
				if err != nil {
					if !errors.Is(err, experiment.ErrUnavailable) {
						t.Errorf("Write: %v", err)
					}
					continue
				}
				mu.Lock()
				for i, item := range items {
					acknowledged[item] = true
					if results[i] != fate(item) {
						t.Errorf("item %d: result %v, want %v", item, results[i], fate(item))
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute) // Every repeat is over.
	mustStop(t, stop)
	checkCommits(t, s.commits, acknowledged, bestEffort, lost)
}

func checkCommits(t *testing.T, commits [][]int, acknowledged map[int]bool, bestEffort []int, lost int) {
	t.Helper()
	times, last := map[int]int{}, map[int]int{}
	for _, item := range slices.Concat(commits...) {
		times[item]++
		caller := item / 1_000_000
		if caller%4 == 0 {
			continue
		}
		if item < last[caller] {
			t.Errorf("caller %d: item %d was stored after %d", caller, item, last[caller])
		}
		last[caller] = item
	}
	for item := range acknowledged {
		want := 1
		if fate(item) == experiment.Refused {
			want = 0
		}
		if times[item] != want {
			t.Errorf("item %d was acknowledged and committed %d times, want %d", item, times[item], want)
		}
	}
	// An entry that is lost may have been stored in part, if its batch was
	// halved; so more can be counted as lost than is missing, never less.
	missing := 0
	for _, item := range bestEffort {
		if times[item] == 0 && fate(item) != experiment.Refused {
			missing++
		}
	}
	if missing > lost {
		t.Errorf("of %d best-effort items %d are missing and %d were counted as lost", len(bestEffort), missing, lost)
	}
}
