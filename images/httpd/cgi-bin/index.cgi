#!/bin/sh
# What the server answers to "/": which pod it is, so that one can watch a Service spread its connections.
printf 'Content-Type: text/plain\r\n\r\n'
printf 'Hello from %s\n' "$(hostname)"
