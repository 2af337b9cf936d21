#!/bin/sh
# Patroni runs this once, when the first primary has been initialised, with the superuser's connection string.
exec psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 "$1" --file=/etc/patroni-credentials/roles.sql
