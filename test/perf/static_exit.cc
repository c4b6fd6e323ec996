// The smallest static program: what ForkExecWait/static executes.
int main() { return 0; }
