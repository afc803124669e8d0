package server

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries is how many experiments a metric counts one by one. Experiments are never
// removed, and a server may count of every one that ever ran: so the series would only
// ever grow more, in its memory and in every scrape.
const maxSeries = 1_000

// byExperiment counts by the experiment's key. Those that come after the first thousand
// are counted together, under no key.
type byExperiment struct {
	*prometheus.CounterVec

	mu   sync.Mutex
	keys map[string]bool
}

// newByExperiment makes a counter of that.
func newByExperiment(name, help string) *byExperiment {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"experiment"})
	return &byExperiment{CounterVec: vec, keys: map[string]bool{}}
}

// of returns the counter of an experiment.
func (b *byExperiment) of(key string) prometheus.Counter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.keys[key] {
		if len(b.keys) == maxSeries {
			key = ""
		} else {
			b.keys[key] = true
		}
	}
	return b.WithLabelValues(key)
}
