"""The pack job: calibrate, search λ, allocate, write; and rate-distortion curves."""
