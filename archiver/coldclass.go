package archiver

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgstow/pgstow/storage"
)

// thawTime is how long a thaw takes, as S3's documentation has it.
type thawTime struct {
	tier storage.ThawTier
	text string
	poll time.Duration // how often it is worth asking
}

// coldClasses are the classes whose objects are thawed before they are read,
// with the tiers that each has.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
var coldClasses = map[string][]thawTime{
	"GLACIER": {
		{storage.ThawExpedited, "1 to 5 minutes, more above 250 MB", 15 * time.Second},
		{storage.ThawStandard, "3 to 5 hours", 5 * time.Minute},
		{storage.ThawBulk, "5 to 12 hours", 10 * time.Minute},
	},
	"DEEP_ARCHIVE": {
		{storage.ThawStandard, "12 hours", 10 * time.Minute},
		{storage.ThawBulk, "48 hours", 30 * time.Minute},
	},
}

// otherCold is of what lies in an archive tier without a class to tell which:
// INTELLIGENT_TIERING.
var otherCold = []thawTime{
	{storage.ThawStandard, "3 to 12 hours", 5 * time.Minute},
	{storage.ThawBulk, "5 to 48 hours", 10 * time.Minute},
}

func thawTimes(class string) []thawTime {
	if times := coldClasses[class]; times != nil {
		return times
	}
	return otherCold
}

// thawTimesText is how long each tier takes.
func thawTimesText(class string) string {
	var parts []string
	for _, t := range thawTimes(class) {
		parts = append(parts, fmt.Sprintf("%s takes %s", t.tier, t.text))
	}
	return strings.Join(parts, ", ")
}

// thawTime is that of one tier. What a class does not have is ErrUsage.
func thawTimeOf(class string, tier storage.ThawTier) (thawTime, error) {
	for _, t := range thawTimes(class) {
		if t.tier == tier {
			return t, nil
		}
	}
	if coldClasses[class] == nil && tier == storage.ThawExpedited {
		return thawTime{tier, "1 to 5 minutes", 15 * time.Second}, nil // some of them have it
	}
	return thawTime{}, fmt.Errorf("%w: %s has no %s thaw; %s", ErrUsage, class, tier, thawTimesText(class))
}

// ParseThawTier reads the name of a tier; another is ErrUsage.
func ParseThawTier(name string) (storage.ThawTier, error) {
	switch t := storage.ThawTier(name); t {
	case storage.ThawExpedited, storage.ThawStandard, storage.ThawBulk:
		return t, nil
	}
	return "", fmt.Errorf("%w: tier %q; want expedited, standard or bulk", ErrUsage, name)
}

// ColdError is an archive that has to be thawed before it can be read.
type ColdError struct {
	ID    string
	Class string // of the dump
	// Ongoing: it is being thawed.
	Ongoing bool
	// Takes is how long a thaw that was asked for now takes, "" where none was.
	Takes string
}

func (e *ColdError) Error() string {
	switch {
	case e.Takes != "":
		return fmt.Sprintf("archive %s lies in %s and its thaw was asked for, which takes %s; run this again then, or wait with --wait", e.ID, e.Class, e.Takes)
	case e.Ongoing:
		return fmt.Sprintf("archive %s lies in %s and is being thawed; `pgstow thaw %s --wait` waits for it (%s)", e.ID, e.Class, e.ID, thawTimesText(e.Class))
	}
	return fmt.Sprintf("archive %s lies in %s and has to be thawed before it can be read: %s; `pgstow thaw %s --tier standard`, or give --thaw TIER --wait",
		e.ID, e.Class, thawTimesText(e.Class), e.ID)
}

// Unwrap makes the error a storage.ErrCold.
func (e *ColdError) Unwrap() error { return storage.ErrCold }
