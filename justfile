# Short names for the commands of this repository; CI calls the same ones.

# Lists the recipes.
default:
    @just --list

# Everything that CI runs.
test:
    ./test.sh

# Formats the code.
fmt:
    cargo fmt

# The format and the lints.
lint:
    ./test.sh lint

# The tests on real systemd; needs root.
host:
    ./test.sh prepare host

# Licences and bans of the dependencies; needs cargo-deny.
deny:
    cargo deny check

# A deployment, a bad release and a way back, in a temporary folder.
demo:
    cargo run --quiet -- demo

# Side by side with its peers; needs root.
bench:
    cargo bench --bench peers
