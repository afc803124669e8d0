package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/assayhq/assay/internal/postgres"
)

// nameRoom tells how many outcome names there are, and how many more there may be. It
// asks the database at every scrape, as all servers share the room, and tells nothing
// while that does not answer.
type nameRoom struct{ db *postgres.DB }

// nameRoomTimeout bounds the wait of a scrape.
const nameRoomTimeout = time.Second

var (
	namesKnown = prometheus.NewDesc("assay_outcome_names", "Outcome names that count against the limit.", nil, nil)
	namesLimit = prometheus.NewDesc("assay_outcome_names_limit", "How many outcome names there may be.", nil, nil)
	namesLeft  = prometheus.NewDesc("assay_outcome_names_left", "How many new outcome names are still admitted in this hour.", nil, nil)
)

func (nameRoom) Describe(descs chan<- *prometheus.Desc) {
	descs <- namesKnown
	descs <- namesLimit
	descs <- namesLeft
}

func (n nameRoom) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), nameRoomTimeout)
	defer cancel()
	room, err := n.db.NameRoom(ctx)
	if err != nil {
		return
	}
	for desc, value := range map[*prometheus.Desc]int{namesKnown: room.Known, namesLimit: room.Limit, namesLeft: room.Left} {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value))
	}
}
