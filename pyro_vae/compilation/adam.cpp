// Adam's update (Kingma and Ba, 2015) of all parameters in one call, with at most one parallel region: torch's fused kernel opens one
// for each parameter, and on small nets waits longer for its threads than it computes.
//
// Each parameter, its gradient and its moments have the same layout, without gaps, of as many entries as `sizes` says. `counts` are
// the steps so far, to which this one is added. The decay of weights is added to the gradient, or, decoupled (Loshchilov and Hutter, 2019),
// shrinks the parameter.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace {

constexpr int64_t BLOCK = 1 << 12, FEWEST_BLOCKS_FOR_THREADS = 32;  // some 25 us, as long as a thread takes to wake up at worst

struct Rates {
    float step, first, kept, second, root, eps, decay, shrinkage;
};

void update(float* __restrict parameter, const float* __restrict gradient, float* __restrict first, float* __restrict second,
            int64_t size, Rates rates) {
    for (int64_t i = 0; i < size; i++) {
        const float slope = gradient[i] + rates.decay * parameter[i];
        first[i] += rates.first * (slope - first[i]);
        second[i] = rates.kept * second[i] + rates.second * slope * slope;
        parameter[i] = rates.shrinkage * parameter[i] - rates.step * first[i] / (std::sqrt(second[i]) / rates.root + rates.eps);
    }
}

}  // namespace

extern "C" void kernel(const std::vector<float*>& parameters, const std::vector<float*>& gradients, const std::vector<float*>& first,
                       const std::vector<float*>& second, const std::vector<float*>& counts, const int64_t* sizes, const double* rate,
                       double beta1, double beta2, double eps, double decay, int64_t decoupled) {
    for (const auto* others : {&gradients, &first, &second, &counts})
        if (others->size() != parameters.size()) throw std::invalid_argument("not as many of each as there are parameters");
    const int64_t number = static_cast<int64_t>(parameters.size());
    std::vector<int64_t> ends(number);  // of each parameter's blocks, in a row of all of them
    std::vector<Rates> rates(number);
    for (int64_t i = 0; i < number; i++) {
        ends[i] = (i ? ends[i - 1] : 0) + (sizes[i] + BLOCK - 1) / BLOCK;
        const double count = ++*counts[i], step = *rate / (1.0 - std::pow(beta1, count)), root = std::sqrt(1.0 - std::pow(beta2, count));
        rates[i] = {float(step), float(1.0 - beta1), float(beta2), float(1.0 - beta2), float(root), float(eps),
                    float(decoupled ? 0.0 : decay), float(decoupled ? 1.0 - *rate * decay : 1.0)};
    }
    const int64_t blocks = number ? ends.back() : 0;
    #pragma omp parallel for schedule(static) if (blocks >= FEWEST_BLOCKS_FOR_THREADS)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t i = std::upper_bound(ends.begin(), ends.end(), block) - ends.begin();
        const int64_t start = (block - (i ? ends[i - 1] : 0)) * BLOCK;
        update(parameters[i] + start, gradients[i] + start, first[i] + start, second[i] + start, std::min(BLOCK, sizes[i] - start), rates[i]);
    }
}
