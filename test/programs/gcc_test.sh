. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/t.cc" <<'SCRIPT'
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
int main() {
  std::map<std::string, int> m{{"a", 1}, {"b", 2}};
  int sum = 0;
  std::thread t([&] { for (auto& [k, v] : m) sum += v; });
  t.join();
  try { throw std::runtime_error("caught"); } catch (const std::exception& e) { std::cout << e.what() << " " << sum << "\n"; }
}
SCRIPT
same "compile and run" "caught 3" "$(sandbox bash -c "cd /tmp && g++ -std=c++17 -O1 -pthread -o prog '$SCRATCH/t.cc' && ./prog" 2>&1)"
same "compile error" 1 "$(sandbox bash -c 'cd /tmp && echo nonsense > x.c && gcc -c x.c 2>/dev/null; echo $?')"
finish
