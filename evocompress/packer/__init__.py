"""The pack job: calibrate, search λ, allocate, write."""
