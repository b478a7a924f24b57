package storagetest

func faultChecks() []check { return nil }
