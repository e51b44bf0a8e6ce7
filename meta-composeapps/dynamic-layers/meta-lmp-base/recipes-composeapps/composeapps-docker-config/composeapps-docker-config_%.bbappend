# SPDX-License-Identifier: MIT
# LmP reads the logs of containers from the journal and gives containers devices through CDI. Its
# own daemon.json in /usr/lib/docker counts only where /etc/docker has none, so ours says the same.
COMPOSEAPPS_DOCKER_LOG_DRIVER ?= "journald"
COMPOSEAPPS_DOCKER_SETTINGS ?= '{ "features": { "cdi": true }, "log-opts": { "tag": "{{.Name}}" } }'
