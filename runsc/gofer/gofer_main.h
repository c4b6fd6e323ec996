// The gofer role of runsc: serves one tree per connection, confined.
#ifndef REDOUBT_RUNSC_GOFER_GOFER_MAIN_H_
#define REDOUBT_RUNSC_GOFER_GOFER_MAIN_H_

namespace redoubt::gofer {

// argv: "gofer" ("gofer-weak": as --allow-weak-box), then for each tree "ro" or "rw", its host path, and the number of
// its socket. Returns when all peers have hung up.
int GoferMain(int argc, char** argv);

}  // namespace redoubt::gofer

#endif  // REDOUBT_RUNSC_GOFER_GOFER_MAIN_H_
