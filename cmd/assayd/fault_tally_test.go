package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"text/tabwriter"
)

// faultTally is what was tried, over all drills.
type faultTally struct {
	kinds    []string // In the order of their first trial.
	injected map[string]int
	trials   map[string]int
	untried  map[string]error
	traffic  traffic
	doubts   inDoubt
	rows     totals
	shown    shownTotals
	seconds  float64

	asked, unanswered atomic.Int64 // Assignments; those that a killed server owed.
}

func newFaultTally() *faultTally {
	return &faultTally{injected: map[string]int{}, trials: map[string]int{}, untried: map[string]error{}}
}

func (c *faultTally) notTried(kind string, why error) {
	c.kinds = append(c.kinds, kind)
	c.untried[kind] = why
}

func (c *faultTally) add(kind string, injected int, t *traffic) {
	if c.trials[kind] == 0 {
		c.kinds = append(c.kinds, kind)
	}
	c.trials[kind]++
	c.injected[kind] += injected
	c.traffic.add(t)
}

func (t *traffic) add(o *traffic) {
	t.calls += o.calls
	t.failedCalls += o.failedCalls
	t.outcomes += o.outcomes
	t.acknowledged += o.acknowledged
	t.conflicts += o.conflicts
	t.refused += o.refused
	t.inDoubt += o.inDoubt
	t.exposures += o.exposures
	t.exposuresAcknowledged += o.exposuresAcknowledged
	t.mismatches += o.mismatches
	t.exposuresInDoubt += o.exposuresInDoubt
	t.streams += o.streams
	t.streamsBroken += o.streamsBroken
	t.batches += o.batches
	t.batchesAcknowledged += o.batchesAcknowledged
}

func (c *faultTally) stored(doubts inDoubt, outcomes, exposures int) {
	c.doubts.sent += doubts.sent
	c.doubts.stored += doubts.stored
	c.rows.Outcomes += int64(outcomes)
	c.rows.Exposures += int64(exposures)
}

// String is the closing table.
func (c *faultTally) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "fault\ttrials\tinjected\n")
	for _, kind := range c.kinds {
		if why := c.untried[kind]; why != nil {
			fmt.Fprintf(w, "%s\tNOT TRIED\t%v\n", kind, why)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\n", kind, c.trials[kind], c.injected[kind])
	}
	w.Flush()
	t := &c.traffic
	fmt.Fprintf(w, "\n\tsent\tacknowledged\trejected as they must be\tin a call or batch that failed\tstored\n")
	fmt.Fprintf(w, "outcomes\t%d\t%d\t%d conflicts, %d refused\t%d\t%d\n", t.outcomes, t.acknowledged, t.conflicts, t.refused, t.inDoubt, c.rows.Outcomes)
	fmt.Fprintf(w, "exposures\t%d\t%d\t%d\t%d\t%d\n", t.exposures, t.exposuresAcknowledged, t.mismatches, t.exposuresInDoubt, c.rows.Exposures)
	w.Flush()
	fmt.Fprintf(&b, "\nOf %d outcomes no answer ever settled whether they are stored; %d are.\n", c.doubts.sent, c.doubts.stored)
	fmt.Fprintf(&b, "%d batches of them went through %d streams, of which %d broke; %d were acknowledged.\n", t.batches, t.streams, t.streamsBroken, t.batchesAcknowledged)
	fmt.Fprintf(&b, "Of %d more exposures, recorded by best effort, %d are stored.\n", c.shown.asked, c.shown.stored)
	fmt.Fprintf(&b, "%d calls and batches recorded, of which %d failed; %d assignments were asked for, of which %d were owed by a server that was killed or stopped meanwhile. %.0f seconds.\n",
		t.calls, t.failedCalls, c.asked.Load(), c.unanswered.Load(), c.seconds)
	return b.String()
}
