package assign

import (
	"maps"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
)

// MaxListed is how many experiments Running lists at most.
const MaxListed = 1000

// Catalog is an immutable set of compiled experiments, safe for concurrent use.
type Catalog struct {
	pepper      experiment.Pepper
	experiments map[string]*Experiment
	running     map[string][]*Experiment // Unit → in the order of keys.
}

// NewCatalog returns an empty catalog. The pepper finds the overrides of
// subjects, which storage knows by their ids.
func NewCatalog(pepper experiment.Pepper) *Catalog {
	return &Catalog{pepper: pepper}
}

// With returns a catalog in which the given experiments have been added or
// replaced those of the same key. The others are shared with c, which remains
// as it is.
func (c *Catalog) With(changed ...*Experiment) *Catalog {
	next := &Catalog{
		pepper:      c.pepper,
		experiments: make(map[string]*Experiment, len(c.experiments)+len(changed)),
		running:     map[string][]*Experiment{},
	}
	maps.Copy(next.experiments, c.experiments)
	for _, e := range changed {
		next.experiments[e.Key] = e
	}
	for _, e := range next.experiments {
		if e.running() {
			unit := e.Current.Definition.Unit
			next.running[unit] = append(next.running[unit], e)
		}
	}
	for _, list := range next.running {
		slices.SortFunc(list, func(a, b *Experiment) int { return strings.Compare(a.Key, b.Key) })
	}
	return next
}

// Experiment returns the experiment with the key, or nil.
func (c *Catalog) Experiment(key string) *Experiment { return c.experiments[key] }

// Versions returns the version of each experiment by its key.
func (c *Catalog) Versions() map[string]int64 {
	versions := make(map[string]int64, len(c.experiments))
	for key, e := range c.experiments {
		versions[key] = e.Version
	}
	return versions
}

// Running lists the running experiments of a unit that are assigned here and
// carry all of the labels,
// in the order of their keys, and says whether there are more than the MaxListed
// that it returns. The list is for reading only.
func (c *Catalog) Running(unit string, labels map[string]string) (list []*Experiment, truncated bool) {
	all := c.running[unit]
	if len(labels) == 0 {
		n := min(len(all), MaxListed)
		return all[:n:n], len(all) > n
	}
	for _, e := range all {
		if !e.Current.Definition.Carries(labels) {
			continue
		}
		if len(list) == MaxListed {
			return list, true
		}
		list = append(list, e)
	}
	return list, false
}

// running says whether the experiment assigns by itself at present.
func (e *Experiment) running() bool {
	return e.State == experiment.StateRunning && e.failure == nil && !e.Current.Definition.External
}
