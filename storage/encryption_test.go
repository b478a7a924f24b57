package storage

import "testing"

func TestEncryptionCovers(t *testing.T) {
	const (
		arn   = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
		id    = "1234abcd-12ab-34cd-56ef-1234567890ab"
		gcs   = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
		alias = "alias/archives"
	)
	none, own := Encryption{}, Encryption{Mode: EncryptionStore}
	kms := func(key string) Encryption { return Encryption{Mode: EncryptionKMS, Key: key} }
	for _, c := range []struct {
		shown, want Encryption
		covers      bool
	}{
		{none, none, true}, {own, none, true}, {kms(arn), none, true},
		{none, own, false}, {own, own, true}, {kms(arn), own, true},
		{none, kms(""), false}, {own, kms(""), false}, {kms(arn), kms(""), true}, {kms(""), kms(""), true},
		{own, kms(arn), false}, {none, kms(arn), false},

		{kms(arn), kms(arn), true}, {kms(arn), kms(id), true}, {kms(id), kms(arn), true}, {kms(arn), kms("key/" + id), true},
		{kms(""), kms(arn), false}, // a store that hides the key shows less than was asked for
		{kms(arn), kms("1234abcd"), false},
		{kms(arn), kms("ffffabcd-12ab-34cd-56ef-1234567890ab"), false},
		{kms(arn), kms("arn:aws:kms:us-east-1:111122223333:key/" + id), false},
		{kms(arn), kms("arn:aws:kms:eu-central-1:999922223333:key/" + id), false},
		{kms(arn), kms("arn:aws-cn:kms:eu-central-1:111122223333:key/" + id), false},

		{kms(arn), kms(alias), true}, {kms(id), kms(alias), true}, {kms(alias), kms(alias), true},
		{kms(arn), kms("arn:aws:kms:eu-central-1:111122223333:" + alias), true},
		{kms(arn), kms("arn:aws:kms:us-east-1:111122223333:" + alias), false},
		{kms("alias/other"), kms(alias), false}, {kms(alias), kms(arn), false}, {kms(""), kms(alias), false},
		{own, kms(alias), false},

		{kms("arn:aws:kms:my-key"), kms("my-key"), true}, {kms("arn:aws:kms:my-key"), kms("arn:aws:kms:my-key"), true},
		{kms("arn:aws:kms:my-key"), kms("other-key"), false},

		{kms(gcs + "/cryptoKeyVersions/3"), kms(gcs), true}, {kms(gcs), kms(gcs), true},
		{kms(gcs + "/cryptoKeyVersions/3"), kms(gcs + "2"), false},
		{kms(gcs + "2/cryptoKeyVersions/3"), kms(gcs), false},
		{kms(gcs + "/cryptoKeyVersions/3"), Encryption{Mode: "other", Key: gcs}, false},
	} {
		if got := c.shown.Covers(c.want); got != c.covers {
			t.Errorf("%+v covers %+v: %t", c.shown, c.want, got)
		}
	}
}
