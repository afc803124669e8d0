package server

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// rosterList is a list of subjects that comes in. A list of millions fits into
// memory since it is columns and holds no keys.
type rosterList struct {
	*assign.RosterList
	experiment *experiment.Experiment
	firsts     []int                // The place of the first subject of each message.
	covariates map[string][]float64 // Name → the value of each subject, NaN where it has none.
}

func newRosterList(pepper experiment.Pepper, e *experiment.Experiment) *rosterList {
	return &rosterList{
		RosterList: assign.NewRosterList(pepper, &e.Current.Definition),
		experiment: e,
		covariates: map[string][]float64{},
	}
}

// add takes in a message that keeps the schema's rules.
func (l *rosterList) add(req *assayv1.AllocateRosterRequest) error {
	if req.Experiment != "" && req.Experiment != l.experiment.Key {
		return experiment.Invalid("experiment", "is %q, and in the first message it was %q", req.Experiment, l.experiment.Key)
	}
	l.firsts = append(l.firsts, l.Len())
	if l.Len()+len(req.Subjects) > experiment.MaxRosterSubjects {
		return experiment.Invalid("subjects", "a roster holds at most %d subjects; spread the list over several experiments", experiment.MaxRosterSubjects)
	}
	for i, subject := range req.Subjects {
		if !l.Add(subject.Key, subject.Stratum) {
			return experiment.Invalid(fmt.Sprintf("subjects[%d].stratum", i), "a roster has at most %d strata; join small ones", experiment.MaxRosterStrata)
		}
		if !l.addCovariates(subject.Covariates) {
			return experiment.Invalid(fmt.Sprintf("subjects[%d].covariates", i), "a roster has at most %d covariates; leave some out", experiment.MaxRosterCovariates)
		}
	}
	return nil
}

// addCovariates adds those of the subject that was added last.
func (l *rosterList) addCovariates(values map[string]float64) bool {
	for name := range values {
		if l.covariates[name] != nil {
			continue
		}
		if len(l.covariates) == experiment.MaxRosterCovariates {
			return false
		}
		column := make([]float64, l.Len()-1, l.Len())
		for i := range column {
			column[i] = math.NaN()
		}
		l.covariates[name] = column
	}
	for name, column := range l.covariates {
		x, ok := values[name]
		if !ok {
			x = math.NaN()
		}
		l.covariates[name] = append(column, x)
	}
	return true
}

// maxRepeatsTold bounds the words about subjects that are listed twice.
const maxRepeatsTold = 20

// checkUnique refuses a list in which a subject stands twice. The order is that
// of the ids.
func (l *rosterList) checkUnique(order []int32) error {
	type repeat struct{ first, again int32 }
	var repeats []repeat
	for i := 1; i < len(order); i++ {
		if l.Same(order[i-1], order[i]) {
			repeats = append(repeats, repeat{order[i-1], order[i]})
		}
	}
	slices.SortFunc(repeats, func(a, b repeat) int { return int(a.again) - int(b.again) })
	var bad experiment.InvalidError
	for i, r := range repeats {
		if i == maxRepeatsTold {
			bad.Add("subjects", "%d more subjects are listed again", len(repeats)-i)
			break
		}
		message, item := l.place(r.again)
		earlier, at := l.place(r.first)
		strata := "in the same stratum"
		if one, other := l.Stratum(r.first), l.Stratum(r.again); one != other {
			strata = fmt.Sprintf("in the stratum %q, and here in %q", l.Strata()[one], l.Strata()[other])
		}
		bad.Add(fmt.Sprintf("subjects[%d].key", item), "message %d: the subject is also subjects[%d] of message %d, %s", message, at, earlier, strata)
	}
	return bad.Err()
}

// place returns where a subject came in: the number of the message and its
// index there.
func (l *rosterList) place(i int32) (message, item int) {
	message = sort.SearchInts(l.firsts, int(i)+1) - 1
	return message, int(i) - l.firsts[message]
}

// inMessage says which message of a stream is at fault.
func inMessage(number int, err error) error {
	var invalid *experiment.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	var bad experiment.InvalidError
	for _, v := range invalid.Violations {
		bad.Add(v.Field, "message %d: %s", number, v.Message)
	}
	return bad.Err()
}

// balance tells how alike the variants are that were given. The subjects are
// added up in the order of their ids, so that the order of the list does not
// show in the last digits.
func (l *rosterList) balance(order []int32, given []uint8) *experiment.Balance {
	def := &l.experiment.Current.Definition
	b := &experiment.Balance{Strata: make([]experiment.StratumBalance, len(l.Strata()))}
	for i, name := range l.Strata() {
		b.Strata[i] = experiment.StratumBalance{Stratum: name, Subjects: make([]int64, len(def.Variants))}
	}
	for place, v := range given {
		b.Strata[l.Stratum(int32(place))].Subjects[v]++
	}
	slices.SortFunc(b.Strata, func(a, b experiment.StratumBalance) int { return strings.Compare(a.Stratum, b.Stratum) })
	for _, name := range slices.Sorted(maps.Keys(l.covariates)) {
		column := l.covariates[name]
		arms := make([]experiment.ArmCovariate, len(def.Variants))
		moments := make([]stats.Moments, len(def.Variants))
		for i := range moments {
			moments[i] = stats.NewMoments(1)
		}
		for _, place := range order {
			if v, x := given[place], column[place:place+1]; math.IsNaN(x[0]) {
				arms[v].Missing++
			} else {
				moments[v].Add(x)
			}
		}
		compareArms(arms, moments, def.Control())
		b.Covariates = append(b.Covariates, experiment.CovariateBalance{Name: name, Arms: arms})
	}
	return b
}

// compareArms fills in what the moments of a covariate in each arm tell.
//
// The standardised difference is (mean − mean of the control) divided by the
// square root of the mean of both sample variances: Austin (2009), Balance
// diagnostics for comparing the distribution of baseline covariates between
// treatment groups in propensity-score matched samples, section 2.
func compareArms(arms []experiment.ArmCovariate, moments []stats.Moments, control int) {
	base := &moments[control]
	baseMean, _ := base.Mean(0)
	baseVariance, comparable := base.Covariance(0, 0)
	for i := range arms {
		a, m := &arms[i], &moments[i]
		a.Subjects = m.N
		mean, ok := m.Mean(0)
		if !ok {
			a.Note = "No subject has it."
			continue
		}
		a.Mean = &mean
		variance, ok := m.Covariance(0, 0)
		if !ok {
			a.Note = "One subject alone has no standard deviation."
			continue
		}
		deviation := math.Sqrt(variance)
		a.Deviation = &deviation
		pooled := math.Sqrt((variance + baseVariance) / 2)
		switch {
		case i == control:
		case !comparable:
			a.Note = "Fewer than two subjects of the control have it."
		case pooled == 0:
			a.Note = "It varies neither here nor in the control."
		default:
			difference := (mean - baseMean) / pooled
			a.Difference = &difference
		}
	}
}
