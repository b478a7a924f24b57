package storagetest

func flowChecks() []check { return nil }
