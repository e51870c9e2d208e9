"""The pack job: calibrate, search λ, allocate, write; rate-distortion curves; and how good a file's network is."""
