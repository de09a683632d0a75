// Stands for libpthread.so.0 at link time. These functions moved to libc.so.6, under a new version,
// between glibc 2.32 and 2.34; linked against this library the module asks for the old ones, which
// every glibc still has.
extern "C" {
void pthread_attr_setstacksize() {}
void pthread_create() {}
void pthread_join() {}
void pthread_once() {}
void pthread_sigmask() {}
}
