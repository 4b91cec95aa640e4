# pip's output in few lines: a counter on a terminal, else a line for every ten packages and for each "10 s".
function show(text, is_last) {
  if (tty) printf "\r\033[K%s%s", text, is_last ? "\n" : ""
  else if (is_last || count % 10 == 0) print text
  fflush()
}
BEGIN { work = "making the environment" }
/^10 s$/ { waited += 10; text = "  " work ", " waited " s"; if (tty) show(text); else print text; fflush() }
/^Ignoring / { total-- }  # for another system or Python
/^(Collecting|Processing) / { count++; sub(/.*\//, "", $2); work = "fetching package " count " of " total; show("  " work ": " $2) }
/^Installing collected packages/ { work = "unpacking " count " packages"; show("  " work "; this takes as long again ...", 1) }
/^(ERROR|error|WARNING: .*(hash|yanked))/ { print }
/^Successfully installed/ { show("  installed", 1) }
