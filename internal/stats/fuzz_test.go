package stats

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// arbitrary builds a request of two strata and three components out of any
// numbers, or of a proportion in one stratum. Each choice has bits of its own.
func arbitrary(shape uint32, test Test, margin float64, count func() int64, number func() float64) Request {
	const dim = 3
	test.Method, test.Alternative = FixedHorizon+Method(shape>>5&3), Alternative(shape>>7&3)
	test.Prior = Prior{Alpha: 0.5, Beta: 2, LiftMean: margin, LiftDeviation: math.Abs(margin)}
	test.LessIsBetter = shape>>10&1 != 0
	r := Request{
		Formula:    []Formula{ComponentMean(0), ComponentRatio(0, 1)}[shape&1],
		Covariates: [][]int{nil, {2}, {1, 2}, {2, 1}}[shape>>1&3],
		Arms:       make([]Arm, 2+shape>>3&1),
		Control:    int(shape >> 4 & 1),
		Test:       test,
		Proportion: shape&7 == 0,
		Margin:     Margin{Scale: Scale(shape >> 9 & 1), Value: margin},
		Guardrail:  shape>>11&1 != 0, NonNegative: shape>>12&1 != 0,
	}
	if shape>>14&1 != 0 {
		r.Informative = func(counts []float64) float64 { return min(counts[0], counts[1]) }
	}
	if shape>>15&1 != 0 {
		r.Divisors = []Formula{ComponentMean(1)}
	}
	for a := range r.Arms {
		for range 1 + min(1, int(shape&7)) {
			m := NewMoments(dim)
			m.N = count()
			for i := range m.Means {
				m.Means[i] = number()
			}
			if r.Proportion && m.Means[0] != 0 {
				m.Means[0] = 1 / (1 + math.Abs(m.Means[0]))
			}
			for k := range m.Products {
				m.Products[k] = number()
			}
			for i := range dim {
				m.Products[m.index(i, i)] = math.Abs(m.Products[m.index(i, i)])
				m.NonZero[i], m.Negative[i] = min(m.N, count()), min(m.N, count())
			}
			if shape>>13&1 != 0 {
				m.NonZero, m.Negative = nil, nil
			}
			r.Arms[a].Strata = append(r.Arms[a].Strata, m)
		}
	}
	return r
}

// FuzzCompare: whatever the numbers, Compare answers or refuses. No panic, no
// NaN, no infinity, nothing absent without a note.
func FuzzCompare(f *testing.F) {
	f.Add([]byte{}, uint32(0), 0.95, 0.0, int64(0))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00"), uint32(0xffff), 0.9, 0.01, int64(100))
	var seed []byte
	for range 6 {
		seed = binary.LittleEndian.AppendUint64(seed, 100<<6)
		for _, x := range []float64{1, 2, 0.5, 0.1, 3, 0.2, 1e300, -1e-300, 0} {
			seed = binary.LittleEndian.AppendUint64(seed, math.Float64bits(x))
		}
	}
	f.Add(seed, uint32(5), 0.99, -0.5, int64(20_000))
	f.Fuzz(func(t *testing.T, data []byte, shape uint32, level, margin float64, planned int64) {
		next := func() uint64 {
			var word [8]byte
			data = data[copy(word[:], data):]
			return binary.LittleEndian.Uint64(word[:])
		}
		count := func() int64 {
			word := next()
			return int64(word >> 6 >> (word & 63))
		}
		number := func() float64 {
			if x := math.Float64frombits(next()); finite(x) {
				return x
			}
			return 1
		}
		r := arbitrary(shape, Test{ConfidenceLevel: level, PlannedSubjects: planned}, margin, count, number)
		if result, err := Compare(r); err == nil {
			soundness(t, r, result)
		}
		r.Test.Method, r.Test.Schedule = GroupSequential, someSchedule(planned)
		if result, err := Compare(r); err == nil {
			soundness(t, r, result)
		}
	})
}

// TestNeverNaN is the same with numbers that a fuzzer seldom finds: zeros, the
// ends of the range, and all sizes between them.
func TestNeverNaN(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	number := func() float64 {
		sign := float64(1 - 2*rng.IntN(2))
		switch rng.IntN(8) {
		case 0:
			return 0
		case 1:
			return sign * math.MaxFloat64
		case 2:
			return sign * math.SmallestNonzeroFloat64
		case 3:
			return sign
		case 4:
			return sign * math.Pow(10, 616*rng.Float64()-308)
		default:
			return sign * math.Pow(10, 6*rng.Float64()-3)
		}
	}
	count := func() int64 {
		return []int64{0, 1, 2, 3, 100, rng.Int64N(1e6), 1e9, 1e15}[rng.IntN(8)]
	}
	levels := []float64{math.Nextafter(0.5, 1), 0.8, 0.95, 0.999, math.Nextafter(1, 0)}
	refused := 0
	const tries = 10_000
	for tried := range tries {
		test := Test{ConfidenceLevel: levels[rng.IntN(len(levels))], PlannedSubjects: []int64{0, 1, 5000, math.MaxInt64}[rng.IntN(4)]}
		r := arbitrary(rng.Uint32(), test, number(), count, number)
		result, err := Compare(r)
		if err != nil {
			refused++
			continue
		}
		soundness(t, r, result)
		r.Test.Method, r.Test.Schedule = GroupSequential, someSchedule(int64(tried))
		if result, err = Compare(r); err != nil {
			t.Fatal(err)
		}
		soundness(t, r, result)
		if t.Failed() {
			t.Fatalf("%+v", r)
		}
	}
	if refused > tries/2 {
		t.Errorf("%d of %d requests were refused: too few were answered", refused, tries)
	}
}
