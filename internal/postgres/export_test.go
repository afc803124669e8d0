package postgres

import (
	"testing"
	"time"
)

// SetPage makes pages of histories as small as that until the test ends.
func SetPage(t *testing.T, experiments, bytes int) {
	e, b := pageExperiments, pageBytes
	pageExperiments, pageBytes = experiments, bytes
	t.Cleanup(func() { pageExperiments, pageBytes = e, b })
}

// ForgetRefusal makes the database be asked for new names again at once.
func (db *DB) ForgetRefusal() { db.setRefusal(time.Time{}) }

// KeepRefusal keeps it from being asked for new names.
func (db *DB) KeepRefusal() { db.setRefusal(time.Now().Add(time.Hour)) }

func (db *DB) setRefusal(again time.Time) {
	db.names.mu.Lock()
	defer db.names.mu.Unlock()
	db.names.again = again
}
