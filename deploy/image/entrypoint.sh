#!/bin/sh
# Becomes (exec) the service that SERVICE names, or the command that is given: signals and exit code are its own.
set -eu

[ $# -eq 0 ] || exec "$@"

case "${SERVICE:=all}" in
  all) exec python -m portfolio_realtime.run_services ;;
  symbol_collector | market_data_consumer | portfolio_calculator | websocket_server)
    exec python -m "portfolio_realtime.$SERVICE" ;;
esac
echo "SERVICE=$SERVICE is none of: all symbol_collector market_data_consumer portfolio_calculator websocket_server" >&2
exit 2
