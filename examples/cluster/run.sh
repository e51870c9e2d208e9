# The driver of rayjob.yaml: begins the run, or goes on with it. /job has spirals.toml and spirals.py, /runs is kept.
set -e
cd /job
if [ -e /runs/spirals/run.json ]; then
    exec evocompress run --resume --out /runs/spirals --address auto
fi
exec evocompress run spirals.toml --out /runs/spirals --address auto \
    --set storage=s3://bucket/runs/spirals --set resources.workers=32
