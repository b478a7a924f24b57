package storagetest

func readChecks() []check { return nil }
